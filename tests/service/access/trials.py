"""Files of keys for tests, and a frontend that asks for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.access.keys import SCOPES, ApiKey, Scope, make_key, write_keys
from tests.service.frontends import RunningFrontend, run_frontend


class KeyFile:
    """A file that grows key by key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: dict[str, ApiKey] = {}

    def add(self, *scopes: Scope, **rules: Any) -> str:
        """Another key, written to the file; `rules` are fields of ApiKey."""
        made, key = make_key(frozenset(scopes))
        self.keys[made.id] = replace(made, **rules)
        write_keys(self.path, self.keys)
        return key


@dataclass(frozen=True, slots=True)
class Guarded:
    """A frontend with one worker that asks for keys; `keys` has one of each scope."""

    frontend: RunningFrontend
    file: KeyFile
    keys: dict[Scope, str]


@contextmanager
def run_guarded(directory: Path, **settings: str) -> Iterator[Guarded]:
    """A frontend whose file of keys lies in `directory`."""
    file = KeyFile(directory / "keys.json")
    keys: dict[Scope, str] = {scope: file.add(scope) for scope in SCOPES}
    with run_frontend(api_keys=str(file.path), **settings) as frontend:
        frontend.add_worker(1)
        yield Guarded(frontend, file, keys)


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}
