"""Versions that come as files of somebody else's making: checked where they lie, then moved to their place.

`models.repository.write_version` makes versions; this takes them byte for byte, so that a card's digest
stays what its maker knows.
"""

from pathlib import Path
from tempfile import mkdtemp

from models.integrity import BadVersion, check_contents, check_files
from models.repository import (
    NAME,
    VERSION,
    ModelVersion,
    UnknownModel,
    publish_version,
    read_card,
    read_version,
)


def admit_version(directory: Path, staged: Path) -> ModelVersion:
    """Check the version whose files lie in `staged` and move it into `directory`, at once and for good.

    `staged` is on the disk of `directory` and is gone afterwards. Its card says the name and the number.
    Raises BadVersion naming the first fault, VersionExists, OSError; then `directory` is as it was.
    """
    card, _ = read_card(staged)
    if not NAME.fullmatch(card.name):
        raise BadVersion(f"model name {card.name[:64]!r} must match {NAME.pattern}")
    if not VERSION.fullmatch(str(card.version)):
        raise BadVersion(f"version {card.version} must be a whole number from 1 on, below a thousand million")
    check_files(card, staged)
    check_contents(card, staged)
    home = directory / card.name
    home.mkdir(parents=True, exist_ok=True)
    staged.chmod(0o755)
    publish_version(staged, home / str(card.version))
    return read_version(home / str(card.version))


def remove_version(directory: Path, name: str, version: int) -> None:
    """Delete one version for good; raises UnknownModel, OSError. Nobody ever sees half of it."""
    home = directory / name
    place = home / str(version)
    if not NAME.fullmatch(name) or not VERSION.fullmatch(str(version)) or not place.is_dir():
        raise UnknownModel(f"there is no {name[:64]}@{version} to delete")
    grave = Path(mkdtemp(prefix=".removed-", dir=home)) / place.name
    place.rename(grave)
    for path in grave.iterdir():
        path.unlink()
    grave.rmdir()
    grave.parent.rmdir()
