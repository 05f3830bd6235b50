"""Every model version in the repository, and what the service makes of each."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from models.integrity import BadVersion
from models.repository import ModelRepository, ModelVersion, Problem, UnknownModel
from service.types import ModelSummary


@dataclass(frozen=True, slots=True)
class VersionState:
    """One version. `state` "stored": not wanted, or not up yet; `reason`: why it was refused.

    `is_default`: the bare name means it. `is_wanted`: it ought to be served. `use`: why it must stay, if so.
    """

    name: str
    version: int
    digest: str
    state: Literal["ready", "loading", "stored", "refused"]
    reason: str | None
    is_default: bool
    is_wanted: bool
    use: str | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """What lies in the repository: read from the disk, with no word yet on what is served."""

    versions: tuple[ModelVersion, ...]
    problems: tuple[Problem, ...]
    defaults: dict[str, int] = field(default_factory=dict)


def read_inventory(repository: ModelRepository) -> Inventory:
    """Look at every version; a serving.json that cannot be read names no default."""
    versions = repository.list()
    defaults = {}
    for name in {version.card.name for version in versions}:
        try:
            defaults[name] = repository.default_version(name)
        except (UnknownModel, BadVersion):
            continue
    return Inventory(versions, repository.list_problems(), defaults)


def describe_versions(
    inventory: Inventory, wanted: frozenset[str], served: list[ModelSummary]
) -> list[VersionState]:
    """By name and number. `wanted`: names and name@version to serve, empty for every name."""
    return sorted(
        (*_describe_versions(inventory, wanted, served), *_describe_problems(inventory)),
        key=lambda state: (state.name, state.version),
    )


def _describe_versions(
    inventory: Inventory, wanted: frozenset[str], served: list[ModelSummary]
) -> Iterator[VersionState]:
    summaries = {(one.name, one.version, one.digest): one for one in served}
    refused = {(one.name, bad.version): bad.reason for one in served for bad in one.refused}
    members = {
        (member.name, member.version): version.reference
        for version in inventory.versions
        for member in version.card.members
    }
    for version in inventory.versions:
        name, number = version.card.name, version.card.version
        summary = summaries.get((name, number, version.digest))
        is_default = inventory.defaults.get(name) == number
        by_name = is_default and (not wanted or name in wanted)
        reason = refused.get((name, number))
        state = summary.state if summary is not None else "refused" if reason else "stored"
        yield VersionState(
            name=name,
            version=number,
            digest=version.digest,
            state=state,
            reason=reason if state == "refused" else None,
            is_default=is_default,
            is_wanted=by_name or version.reference in wanted,
            use=_name_use(summary, is_default, members.get((name, number))),
        )


def _describe_problems(inventory: Inventory) -> Iterator[VersionState]:
    """A folder whose card cannot be read, where no other folder has the same version whole."""
    whole = {(version.card.name, version.card.version) for version in inventory.versions}
    for problem in inventory.problems:
        name, number = problem.path.parent.name, int(problem.path.name)
        if (name, number) not in whole:
            yield VersionState(name, number, "", "refused", problem.reason, False, False, None)


def _name_use(summary: ModelSummary | None, is_default: bool, ensemble: str | None) -> str | None:
    if is_default:
        return "is what its name means; activate another version first"
    if summary is not None and summary.state != "refused":
        return "is being served"
    return None if ensemble is None else f"is a member of {ensemble}"
