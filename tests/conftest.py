"""What every test shares. Where torch is not installed, the test modules that import it are left out."""

import ast
import importlib.util
from pathlib import Path

NEEDS_TORCH = (
    "torch",
    "torchvision",
    "training",
    "models.networks",
    "models.checkpoints",
    "models.engines.torch",
    "onnx",
    "tests.models.making",
    "tests.models.views.looking",
)
HAS_TORCH = importlib.util.find_spec("torch") is not None


def imported_names(source: str) -> set[str]:
    """The modules imported at the top level of `source`, `from a import b` giving both a and a.b."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def needs_torch(source: str) -> bool:
    """Whether `source` imports torch, or a room that does, at its top level."""
    return any(
        name == needed or name.startswith(f"{needed}.")
        for name in imported_names(source)
        for needed in NEEDS_TORCH
    )


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what needs torch where it is not installed: test modules, and folders whose conftest does."""
    source = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    if HAS_TORCH or source.suffix != ".py" or not source.is_file():
        return None
    return needs_torch(source.read_text(encoding="utf-8")) or None
