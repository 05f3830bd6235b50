"""Find the entries of a room: one file, one entry, nothing to register.

A network, a view policy, an engine or a protocol is added by dropping one module into its package.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

Entry = TypeVar("Entry")


def find_modules(package: ModuleType) -> list[ModuleType]:
    """Import every public module directly inside `package`, in name order."""
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    return [
        importlib.import_module(f"{package.__name__}.{name}") for name in names if not name.startswith("_")
    ]


def find_entries(package: ModuleType, attribute: str, kind: type[Entry]) -> list[Entry]:
    """Collect `attribute` (one `kind`, or a list of them) from every module of `package` that has it."""
    found: list[Entry] = []
    for module in find_modules(package):
        value = getattr(module, attribute, ())
        found.extend([value] if isinstance(value, kind) else value)
    return found
