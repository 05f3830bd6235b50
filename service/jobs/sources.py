"""Images that already lie somewhere: a folder or an object-store prefix that the operator has allowed.

SERVE_BATCH_ROOTS lists what may be read, as URLs; nothing else is ever fetched. A URL is one protocol and one
path: chained URLs, credentials, queries and `..` are refused, and a file must really lie under its root.
"""

import importlib.util
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from service.errors import BadRequest, Forbidden, Internal, NotFound, ServiceError, TooLarge
from service.settings import BadSettings

PROTOCOLS = ("file", "s3", "gs", "az", "abfs", "memory")
NEEDED_PACKAGE = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_URL = re.compile(r"([a-z0-9]+)://([^?#@\0]{1,2048})")


@dataclass(frozen=True, slots=True)
class Location:
    """A folder: `protocol` of PROTOCOLS and a path without its last slash; `root` is what allows it."""

    protocol: str
    path: str
    root: str = ""

    @property
    def url(self) -> str:
        """As SERVE_BATCH_ROOTS writes it."""
        return f"{self.protocol}://{self.path}"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One image: its path below the source's folder, and its size in bytes."""

    name: str
    size_bytes: int


class Source(Protocol):
    """Lists and reads the images of one location. Blocking."""

    def list(self) -> Iterator[SourceFile]:
        """Every image below the folder, in the order of names; raises NotFound."""
        ...

    def read(self, name: str, max_bytes: int) -> bytes:
        """The bytes of one; raises NotFound, Forbidden, TooLarge, or Internal where the store fails."""
        ...


def parse_roots(text: str) -> list[Location]:
    """SERVE_BATCH_ROOTS: URLs separated by commas; raises BadSettings."""
    try:
        return [_parse_url(one.strip()) for one in text.split(",") if one.strip()]
    except BadRequest as err:
        raise BadSettings(f"SERVE_BATCH_ROOTS: {err.detail}") from err


def find_location(url: str, roots: list[Location]) -> Location:
    """The allowed folder that `url` means; raises BadRequest or Forbidden."""
    asked = _parse_url(url)
    for root in roots:
        if root.protocol == asked.protocol:
            path, limit = _resolve(asked), _resolve(root)
            if path == limit or path.startswith(limit.rstrip("/") + "/"):
                return Location(asked.protocol, path, limit)
    allowed = ", ".join(root.url for root in roots) or "none"
    raise Forbidden(f"{_clip(url)} is under no allowed folder; allowed are: {allowed} (SERVE_BATCH_ROOTS)")


def pack_location(location: Location) -> str:
    """For the store."""
    return msgspec.json.encode(location).decode()


def unpack_location(text: str) -> Location:
    """The inverse of pack_location."""
    return msgspec.json.decode(text, type=Location)


def open_source(location: Location) -> Source:
    """What reads there; raises BadRequest where the protocol's package is not installed."""
    if location.protocol == "file":
        return LocalSource(location)
    package = NEEDED_PACKAGE.get(location.protocol)
    if package and importlib.util.find_spec(package) is None:
        raise BadRequest(f"{location.protocol}:// needs the package {package}, which this server lacks")
    return StoreSource(location)


class LocalSource:
    """A folder of this machine. Links are followed only as long as they stay under the root."""

    def __init__(self, location: Location) -> None:
        self._folder, self._root = location.path, location.root

    def list(self) -> Iterator[SourceFile]:
        """See Source."""
        if not os.path.isdir(self._folder):
            raise NotFound("the source is not a folder")
        yield from self._list(self._folder, "")

    def read(self, name: str, max_bytes: int) -> bytes:
        """See Source."""
        try:
            fd = os.open(os.path.join(self._folder, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as err:
            raise NotFound("the file is gone or cannot be read") from err
        with open(fd, "rb") as file:
            real = os.readlink(f"/proc/self/fd/{fd}")  # of what is open now, whatever its name becomes
            if not real.startswith(self._root.rstrip("/") + "/"):
                raise Forbidden("the file is a link that leaves the allowed folder")
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise Forbidden("this is not a regular file")
            _check_size(found.st_size, max_bytes)
            return file.read(max_bytes)

    def _list(self, folder: str, prefix: str) -> Iterator[SourceFile]:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._list(entry.path, name + "/")
            elif is_image_name(name) and not entry.is_dir():
                yield SourceFile(name, entry.stat(follow_symlinks=False).st_size)


class StoreSource:
    """A prefix of an object store, by fsspec, with the credentials of the server's environment."""

    def __init__(self, location: Location) -> None:
        import fsspec

        self._prefix = location.path
        self._store: Any = fsspec.filesystem(location.protocol)

    def list(self) -> Iterator[SourceFile]:
        """See Source."""
        try:
            if not self._store.isdir(self._prefix):
                raise NotFound("the source is not a folder of the store")
            yield from self._list(self._prefix)
        except ServiceError:
            raise
        except Exception as err:  # every store has its own
            raise Internal("the store cannot be listed now") from err

    def read(self, name: str, max_bytes: int) -> bytes:
        """See Source."""
        try:
            with self._store.open(f"{self._prefix}/{name}", "rb", block_size=max_bytes + 1) as file:
                data: bytes = file.read(max_bytes + 1)
        except FileNotFoundError as err:
            raise NotFound("the file is gone") from err
        except PermissionError as err:
            raise Forbidden("the store refuses the file") from err
        except Exception as err:  # as in list
            raise Internal("the store cannot be read now") from err
        _check_size(len(data), max_bytes)
        return data

    def _list(self, folder: str) -> Iterator[SourceFile]:
        for entry in sorted(self._store.ls(folder, detail=True), key=lambda entry: str(entry["name"])):
            path = "/" + str(entry["name"]).strip("/")
            name = path.removeprefix("/" + self._prefix.strip("/") + "/")
            if name == path:  # the folder's own marker
                continue
            if entry["type"] == "directory":
                yield from self._list(str(entry["name"]))
            elif is_image_name(name):
                yield SourceFile(name, int(entry.get("size") or 0))


def is_image_name(name: str) -> bool:
    """Whether a file of a folder is taken for an image, by its suffix."""
    return name.lower().endswith(SUFFIXES)


def _parse_url(url: str) -> Location:
    found = _URL.fullmatch(url)
    if found is None or "::" in url:
        raise BadRequest(
            f"{_clip(url)} is not protocol://path without credentials, queries or chains", "source"
        )
    protocol, path = found.groups()
    if protocol not in PROTOCOLS:
        raise BadRequest(f"{protocol}:// is not accepted; accepted are {', '.join(PROTOCOLS)}", "source")
    if {".", ".."} & set(path.split("/")) or "//" in path or "\\" in path:
        raise BadRequest(f"{_clip(url)} has . or .. or empty parts", "source")
    if protocol == "file" and not path.startswith("/"):
        raise BadRequest(f"{_clip(url)} is not absolute; write file:///folder", "source")
    return Location(protocol, path.rstrip("/") or "/")


def _resolve(location: Location) -> str:
    return os.path.realpath(location.path) if location.protocol == "file" else location.path.strip("/")


def _check_size(size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise TooLarge(f"the image is too large, the limit is {max_bytes} bytes (SERVE_MAX_IMAGE_BYTES)")


def _clip(url: str) -> str:
    return url if len(url) <= 120 else f"{url[:120]}..."
