"""What every test shares. Where torch is not installed, the test modules that import it are left out."""

import ast
import functools
import importlib.util
import signal
from pathlib import Path

NEEDS_TORCH = (
    "torch",
    "torchvision",
    "training",
    "models.networks",
    "models.checkpoints",
    "models.engines.torch",
    "onnx",
)
HAS_TORCH = importlib.util.find_spec("torch") is not None
ROOT = Path(__file__).resolve().parent.parent

# A shell that starts the tests in the background makes them ignore Ctrl-C, and every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


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


@functools.cache
def needs_torch(module: Path) -> bool:
    """Whether a module of the tests imports torch at its top level, or a room or another module that does."""
    for name in imported_names(module.read_text(encoding="utf-8")):
        if any(name == needed or name.startswith(f"{needed}.") for needed in NEEDS_TORCH):
            return True
        shared = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if name.startswith("tests.") and shared.is_file() and needs_torch(shared):
            return True
    return False


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what needs torch where it is not installed: test modules, and folders whose conftest does."""
    module = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    if HAS_TORCH or module.suffix != ".py" or not module.is_file():
        return None
    return needs_torch(module) or None
