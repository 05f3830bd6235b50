"""Which ResNet Serve this is: a clone says it in its pyproject.toml, an installation in its metadata."""

import importlib.metadata
import tomllib
from functools import lru_cache
from pathlib import Path

NAME = "resnet-serve"
UNKNOWN = "unknown"  # the rooms were copied somewhere without either
ROOT = Path(__file__).resolve().parent.parent


@lru_cache(maxsize=1)
def find_version() -> str:
    """The version, such as 0.1.0; a clone's own wins over one that is installed beside it."""
    return _read_clone(ROOT / "pyproject.toml") or _read_installed()


def _read_clone(path: Path) -> str | None:
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return None
    return str(project["version"]) if project.get("name") == NAME and "version" in project else None


def _read_installed() -> str:
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN
