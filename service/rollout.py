"""Which model versions ought to be served, given what lies in the repository and what was refused.

Pure decisions, no processes: the supervisor asks `choose`, starts workers for what is new, and switches
when they are up.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.integrity import BadVersion
from models.repository import ModelRepository, ModelVersion, UnknownModel
from service.messages import RefusedModel, ServedModel
from service.settings import Settings

log = logging.getLogger("supervisor")


@dataclass(frozen=True, slots=True)
class Target:
    """One version that ought to be served. `key` tells it from another content under the same number."""

    model: ServedModel
    path: str

    @property
    def key(self) -> tuple[str, int, str]:
        """Name, version, digest."""
        return self.model.name, self.model.version, self.model.digest


Key = tuple[str, int, str]  # name, version, digest
Look = tuple[tuple[str, int, int], ...]  # name, bytes and time of change of each file


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why, and what the version's files looked like when it was first tried."""

    reason: str
    look: Look


@dataclass(slots=True)
class Rollout:
    """Remembers refusals, so that a broken version is tried once, and again when its files change.

    They do change while a folder is copied file by file, card first: it is then refused and soon tried again.
    Remembers each name's default too, so that a serving.json with a slip in it changes nothing, and the
    version that last came up, so that a refused one leaves it where it was.
    """

    repository: ModelRepository
    settings: Settings
    refusals: dict[Key, Refusal] = field(default_factory=dict)
    looks: dict[Key, Look] = field(default_factory=dict)
    defaults: dict[str, int] = field(default_factory=dict)
    proven: dict[str, int] = field(default_factory=dict)
    problems: list[RefusedModel] = field(default_factory=list)

    def refuse(self, target: Target, reason: str) -> None:
        """That content failed its checks; `choose` passes it over for as long as it stays as it was."""
        self.refusals[target.key] = Refusal(reason, self.looks.get(target.key, ()))

    def prove(self, target: Target) -> None:
        """That version passed its checks and serves; it stays while another one is refused."""
        if target.model.is_default_version:
            self.proven[target.model.name] = target.model.version

    def list_refused(self) -> list[RefusedModel]:
        """Every refusal of what lies in the repository, for /v1/models/{name}."""
        refusals = self.refusals.items()
        refused = [RefusedModel(name, version, refusal.reason) for (name, version, _), refusal in refusals]
        return refused + self.problems

    def choose(self) -> list[Target]:
        """One target per wanted name (the preferred version not refused) and per pinned name@version."""
        versions = self.repository.list()
        self._look_at(versions)
        self.problems = [
            RefusedModel(one.path.parent.name, int(one.path.name), one.reason)
            for one in self.repository.list_problems()
        ]
        wanted = [one.strip() for one in self.settings.models.split(",") if one.strip()]
        names = wanted or sorted({version.card.name for version in versions})
        chosen = [self._choose_one(name, versions, self._answers_name(name, names)) for name in names]
        targets: dict[Key, Target] = {}
        for target in chosen:
            if target is not None and (target.key not in targets or target.model.is_default_version):
                targets[target.key] = target
        return list(targets.values())

    def _look_at(self, versions: Sequence[ModelVersion]) -> None:
        """Forget what is gone, and refusals of what has changed since."""
        there = {(one.card.name, one.card.version, one.digest): _look(one.path) for one in versions}
        kept = {key: refusal for key, refusal in self.refusals.items() if there.get(key) == refusal.look}
        changed = self.refusals.keys() - kept.keys()
        first = {key: look for key, look in self.looks.items() if key in there and key not in changed}
        self.refusals, self.looks = kept, there | first

    def _answers_name(self, reference: str, wanted: Sequence[str]) -> bool:
        """Whether the bare name means this one: it does, or it is the default or newest of pins alone."""
        name, _, pin = reference.partition("@")
        if not pin or name in wanted:
            return not pin
        pins = {one.partition("@")[2] for one in wanted if one.startswith(f"{name}@")}
        default = str(self._find_default(name))
        return pin == (default if default in pins else max(pins, key=lambda one: (len(one), one)))

    def _choose_one(
        self, reference: str, versions: Sequence[ModelVersion], is_default_version: bool
    ) -> Target | None:
        name, _, pin = reference.partition("@")
        candidates = [version for version in versions if version.card.name == name]
        default = self._find_default(name)
        proven = self.proven.get(name)
        candidates.sort(
            key=lambda one: (one.card.version == default, one.card.version == proven, one.card.version),
            reverse=True,
        )
        for version in candidates:
            if pin and str(version.card.version) != pin:
                continue
            target = _make_target(version, is_default_version=is_default_version)
            if target.key not in self.refusals:
                return target
        return None

    def _find_default(self, name: str) -> int:
        """What a bare name means; what it last meant while its serving.json cannot be read."""
        try:
            self.defaults[name] = self.repository.default_version(name)
        except UnknownModel:
            return 0
        except BadVersion as err:
            log.error("default unreadable", extra={"fields": {"model": name, "reason": str(err)}})
        return self.defaults.get(name, 0)


def _look(path: Path) -> Look:
    """Nothing of what vanishes meanwhile."""
    found = []
    try:
        for entry in os.scandir(path):
            stat = entry.stat(follow_symlinks=False)
            found.append((entry.name, stat.st_size, stat.st_mtime_ns))
    except OSError:
        return ()
    return tuple(sorted(found))


def _make_target(version: ModelVersion, *, is_default_version: bool) -> Target:
    card = version.card
    served = ServedModel(
        name=card.name,
        version=card.version,
        digest=version.digest,
        card_path=str(version.path / "card.json"),
        is_default_version=is_default_version,
        precisions=["fp32", "int8"] if "graph.int8.onnx" in card.files else ["fp32"],
    )
    return Target(served, str(version.path))
