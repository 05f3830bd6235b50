"""Where model versions live: `<directory>/<name>/<integer>/`, found by name, checked before use.

A version appears whole or not at all (written beside its place, synced, renamed) and never changes
afterwards: its digest is the SHA-256 of its card, and the card holds the SHA-256 of every other file.
`<name>/serving.json`, `{"default": 3}`, names the version that a bare name means; else it is the highest.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

from models.card import BadCard, ModelCard, dump_card, parse_card
from models.integrity import CARD, BadVersion, check_contents, check_files

SERVING = "serving.json"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
MAX_CARD_BYTES = 64 * 2**20


class UnknownModel(LookupError):
    """No model version answers to that name; the message lists those that exist."""


class VersionExists(ValueError):
    """A version of that number is there already; versions never change."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version on disk. `digest` is the SHA-256 (hex) of the bytes of its card.json."""

    card: ModelCard
    path: Path
    digest: str

    @property
    def reference(self) -> str:
        """`name@version`, as requests and logs write it."""
        return f"{self.card.name}@{self.card.version}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A directory that looks like a version and is not one, and why."""

    path: Path
    reason: str


class ModelRepository:
    """One or more directories, the earlier winning where two hold the same version of the same name.

    Where two say which version is the default, the later wins: it is the operator's own.

    May be asked every second: a card is read again only when its file has changed.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = tuple(directories)
        self._read: dict[Path, tuple[_Stamp, ModelVersion]] = {}

    def list(self) -> tuple[ModelVersion, ...]:
        """Every version whose card can be read, by name and number. Contents are not checked here."""
        return self._scan()[0]

    def list_problems(self) -> tuple[Problem, ...]:
        """Every version directory whose card cannot be read."""
        return self._scan()[1]

    def find(self, reference: str) -> ModelVersion:
        """The version meant by `name` or `name@version`; contents are not checked.

        Raises UnknownModel; BadVersion where serving.json cannot be read.
        """
        name, at, number = reference.partition("@")
        every = self.list()
        versions = [version for version in every if version.card.name == name]
        if not versions:
            known = sorted({version.card.name for version in every})
            raise UnknownModel(f"no model is named {name[:64]!r}; there are: {', '.join(known) or 'none'}")
        wanted = number if at else str(self._default(name, versions))
        for version in versions:
            if str(version.card.version) == wanted:
                return version
        known = [str(version.card.version) for version in versions]
        raise UnknownModel(f"model {name!r} has no version {wanted[:16]!r}; there are: {', '.join(known)}")

    def default_version(self, name: str) -> int:
        """The version number that a bare `name` means; raises UnknownModel, BadVersion (see find)."""
        return self.find(name).card.version

    def _scan(self) -> tuple[tuple[ModelVersion, ...], tuple[Problem, ...]]:
        versions: dict[tuple[str, int], ModelVersion] = {}
        problems = []
        for path in (path for directory in self.directories for path in _version_paths(directory)):
            try:
                version = self._read_again(path)
            except BadVersion as err:
                problems.append(Problem(path, str(err)))
                continue
            versions.setdefault((version.card.name, version.card.version), version)
        return tuple(versions[key] for key in sorted(versions)), tuple(problems)

    def _read_again(self, path: Path) -> ModelVersion:
        stamp = _stamp(path / CARD)
        if path in self._read and self._read[path][0] == stamp:
            return self._read[path][1]
        version = read_version(path)
        self._read[path] = (stamp, version)
        return version

    def _default(self, name: str, versions: Sequence[ModelVersion]) -> int:
        for directory in reversed(self.directories):  # the operator's own comes last and overrules the zoo
            chosen = read_default(directory, name)
            if chosen is not None:
                return chosen
        return max(version.card.version for version in versions)


def read_version(path: Path) -> ModelVersion:
    """Read the card of one version directory, nothing else; raises BadVersion."""
    card, text = read_card(path)
    if (card.name, str(card.version)) != (path.parent.name, path.name):
        raise BadVersion(
            f"{CARD} is of {card.name}@{card.version}, its place of {path.parent.name}@{path.name}"
        )
    return ModelVersion(card, path, hashlib.sha256(text).hexdigest())


def read_card(path: Path) -> tuple[ModelCard, bytes]:
    """The card in a directory, and its bytes; raises BadVersion."""
    card_path = path / CARD
    if path.is_symlink() or card_path.is_symlink() or not card_path.is_file():
        raise BadVersion(f"{path.name}: {CARD} is missing or a link")
    try:
        if card_path.stat().st_size > MAX_CARD_BYTES:
            raise BadVersion(f"{CARD} is larger than {MAX_CARD_BYTES} bytes")
        text = card_path.read_bytes()
        return parse_card(text), text
    except OSError as err:
        raise BadVersion(f"{CARD} cannot be read: {err.strerror}") from err
    except BadCard as err:
        raise BadVersion(str(err)) from err


def check_version(path: Path) -> ModelVersion:
    """Read one version and check every file against its card; raises BadVersion naming the first fault.

    Checked: which files there are, their SHA-256, the tensors' names, shapes, dtypes and finiteness, and
    that the graphs read nothing but weights.safetensors. What they compute is checked by models.selftest.
    """
    version = read_version(path)
    check_files(version.card, path)
    check_contents(version.card, path)
    return version


def check_members(ensemble: ModelVersion, repository: ModelRepository) -> list[ModelVersion]:
    """The members of an ensemble, in its card's order; raises BadVersion if one is absent or unlike it."""
    members = []
    for pinned in ensemble.card.members:
        reference = f"{pinned.name}@{pinned.version}"
        try:
            member = repository.find(reference)
        except UnknownModel as err:
            raise BadVersion(f"{ensemble.reference}: member {reference} is not in the repository") from err
        if member.digest != pinned.digest:
            raise BadVersion(f"{ensemble.reference}: member {reference} is not the pinned one (digest)")
        refuse_unlike(ensemble, member)
        members.append(member)
    return members


def refuse_unlike(ensemble: ModelVersion, member: ModelVersion) -> None:
    """Raise BadVersion unless the member's images, labels and feature maps are the ensemble's."""
    if member.card.members:
        raise BadVersion(f"{ensemble.reference}: member {member.reference} is itself an ensemble")
    for field in ("labels", "preprocess", "window"):
        if getattr(member.card, field) != getattr(ensemble.card, field):
            raise BadVersion(f"{ensemble.reference}: member {member.reference} has other {field}")


def next_version(directory: Path, name: str) -> int:
    """The lowest number above every version of `name` in `directory`."""
    taken = [int(path.name) for path in _version_paths(directory) if path.parent.name == name]
    return max(taken, default=0) + 1


def write_version(directory: Path, card: ModelCard, files: Mapping[str, bytes]) -> ModelVersion:
    """Write a new version at once and for good; raises VersionExists, BadVersion, OSError (full disk).

    `card.version` 0 means the next free number. `card.files` is filled in here. Whatever goes wrong, the
    directory is as it was before.
    """
    if not NAME.fullmatch(card.name):
        raise BadVersion(f"model name {card.name!r} must match {NAME.pattern}")
    card = replace(
        card,
        version=card.version or next_version(directory, card.name),
        files={name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    )
    home = directory / card.name
    home.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=".partial-", dir=home))
    try:
        for name, data in (*files.items(), (CARD, dump_card(card))):
            _write_synced(partial / name, data)
        partial.chmod(0o755)
        check_files(card, partial)
        check_contents(card, partial)
        publish_version(partial, home / str(card.version))
    finally:
        _remove(partial)
    return read_version(home / str(card.version))


def write_default(directory: Path, name: str, version: int, previous: int | None = None) -> None:
    """Make `version` what a bare `name` means, atomically; `previous` is what it meant before."""
    home = directory / name
    home.mkdir(parents=True, exist_ok=True)  # the version itself may lie in another directory
    partial = home / f".{SERVING}-{os.getpid()}"
    chosen = {"default": version} | ({} if previous is None else {"previous": previous})
    _write_synced(partial, json.dumps(chosen).encode() + b"\n")
    partial.replace(home / SERVING)
    _sync(home)


def read_default(directory: Path, name: str) -> int | None:
    """The version that serving.json names, None where there is no such file; raises BadVersion."""
    path = directory / name / SERVING
    if not NAME.fullmatch(name) or not path.is_file():
        return None
    try:
        chosen = json.loads(path.read_bytes())["default"]
    except (ValueError, KeyError, TypeError) as err:
        raise BadVersion(f'{name}/{SERVING} must be {{"default": <version>}}') from err
    if type(chosen) is not int:  # true is an int to isinstance
        raise BadVersion(f"{name}/{SERVING}: default must be an integer, not {chosen!r}")
    return chosen


def read_previous(directory: Path, name: str) -> int | None:
    """The version that serving.json says was the default before, None where it says nothing usable."""
    try:
        previous = json.loads((directory / name / SERVING).read_bytes())["previous"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return previous if type(previous) is int else None


def _version_paths(directory: Path) -> list[Path]:
    homes = [path for path in _entries(directory) if NAME.fullmatch(path.name)]
    paths = [path for home in homes for path in _entries(home) if VERSION.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (path.parent.name, int(path.name)))


def _entries(directory: Path) -> list[Path]:
    """What lies in `directory`; nothing where there is none, as when it is removed while we look."""
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


_Stamp = tuple[int, int, int] | None


def _stamp(path: Path) -> _Stamp:
    """What changes when a file is written or replaced."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def publish_version(partial: Path, place: Path) -> None:
    """Make the finished directory `partial` appear as `place`, for good; raises VersionExists, OSError."""
    _sync(partial)
    if place.exists():
        raise VersionExists(f"{place.parent.name}@{place.name} exists already; versions never change")
    try:
        partial.rename(place)
    except OSError as err:
        if place.exists():
            raise VersionExists(f"{place.parent.name}@{place.name} exists already") from err
        raise
    _sync(place.parent)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(partial: Path) -> None:
    """Remove what is left of a partial version; nothing is when it was published."""
    if not partial.exists():
        return
    for path in partial.iterdir():
        path.unlink()
    partial.rmdir()
