"""A folder of any fsspec store, whose files appear whole or not at all."""

import os
import secrets
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

PARTIAL = ".partial"


class StoreFolder:
    """`url`: a path of this machine, or protocol://path of an object store."""

    def __init__(self, url: str) -> None:
        """Makes the folder where the store has folders; raises OSError, ValueError."""
        self._store, self._path = fsspec.core.url_to_fs(url)
        self._store.makedirs(self._path, exist_ok=True)

    def list_names(self) -> set[str]:
        """The names of its files."""
        self._store.invalidate_cache()
        entries: list[dict[str, Any]] = self._store.ls(self._path, detail=True)
        return {str(one["name"]).rstrip("/").rpartition("/")[2] for one in entries if one["type"] == "file"}

    def open(self, name: str) -> BinaryIO:
        """For reading; raises FileNotFoundError."""
        file: BinaryIO = self._store.open(f"{self._path}/{name}", "rb")
        return file

    def write(self, name: str, data: bytes) -> None:
        """Put a whole file there, replacing what had the name.

        An upload in one piece is atomic in an object store; a file system gets a rename.
        """
        path = f"{self._path}/{name}"
        if not isinstance(self._store, LocalFileSystem):
            self._store.pipe_file(path, data)
            return
        partial = f"{self._path}/.{name}.{secrets.token_hex(4)}{PARTIAL}"
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    def remove_partials(self) -> None:
        """Remove what writers that were killed left behind; nobody else may be writing."""
        for name in self.list_names():
            if name.startswith(".") and name.endswith(PARTIAL):
                self._store.rm_file(f"{self._path}/{name}")
