"""Unpacks an archive into the files of one model version, by the same rules as archives of images."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn

from models.integrity import CARD, GRAPH, GRAPH_INT8, WEIGHTS
from service.errors import BadRequest, Conflict, ServiceError, StorageFull, TooLarge
from service.jobs.body import BodyPipe
from service.jobs.reading.formats import SNIFFED_BYTES, find_archive_reader
from service.jobs.reading.members import CHUNK_BYTES, refuse_member

FILES = frozenset({CARD, WEIGHTS, GRAPH, GRAPH_INT8})
MAX_MEMBERS = 64  # four files, their folders, and what desktop systems add by themselves
STAGED = "version"  # the folder, below the upload's own, that becomes the version
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
RETRY_S = 60.0


def unpack_version(pipe: BodyPipe, folder: Path, max_bytes: int) -> Path:
    """Read a whole archive from `pipe` and return the folder below `folder` with its files, synced.

    The files lie at the archive's root or all in one folder of it. Raises BadRequest, TooLarge, StorageFull.
    """
    unpacker = VersionUnpacker(folder, max_bytes)
    try:
        read = find_archive_reader(pipe.peek(SNIFFED_BYTES))
        if read is None:
            raise BadRequest("the body is no archive; send the version's files as a zip, a tar or a tar.gz")
        with repository_errors():
            read(io.BufferedReader(pipe, CHUNK_BYTES), unpacker)
    finally:
        pipe.abandon()
        unpacker.close()
    if CARD not in unpacker.names:
        raise BadRequest(f"the archive has no {CARD}; send the files of one version's folder")
    return unpacker.staged


@contextmanager
def repository_errors() -> Iterator[None]:
    """A full or read-only disk becomes an error that says so; other failures stay what they are."""
    try:
        yield
    except (OSError, StorageFull) as err:
        if isinstance(err, StorageFull) or err.errno in FULL:
            raise StorageFull("the disk of the model repository is full", RETRY_S) from err
        if err.errno in READ_ONLY:
            detail = "the last folder of SERVE_MODEL_REPOSITORY cannot be written by this service"
            raise Conflict(detail) from err
        raise


class VersionUnpacker:
    """A MemberSink: writes each member below `staged` under the one of FILES that its name ends in."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.staged = folder / STAGED
        self.names: set[str] = set()
        with repository_errors():
            self.staged.mkdir()
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._parent: PurePosixPath | None = None
        self._file: BinaryIO | None = None
        self._name = ""

    def check_count(self, count: int) -> None:
        """Raises TooLarge for an archive of anything else than one version."""
        if count > MAX_MEMBERS:
            raise TooLarge(f"the archive has {count} members, a model version has {len(FILES)} files at most")

    def check_size(self, size_bytes: int) -> None:
        """Raises TooLarge over SERVE_MAX_VERSION_BYTES."""
        if size_bytes > self._max_bytes:
            limit = f"the limit is {self._max_bytes} bytes (SERVE_MAX_VERSION_BYTES)"
            raise TooLarge(f"the version has {size_bytes} or more bytes, {limit}")

    def begin(self, id: str) -> None:
        """Raises BadRequest for what is no file of a version, is there twice, or lies in another folder."""
        path = PurePosixPath(id.replace("\\", "/"))
        if path.name not in FILES:
            raise refuse_member(id, f"is no file of a model version; those are {', '.join(sorted(FILES))}")
        if self._parent not in (None, path.parent) or path.name in self.names:
            raise refuse_member(id, "is of a second version; send one version an archive")
        self._parent, self._name = path.parent, id
        self.names.add(path.name)
        self._file = (self.staged / path.name).open("xb", CHUNK_BYTES)

    def write(self, data: bytes | memoryview) -> None:
        """Raises TooLarge when the version is over its limit."""
        assert self._file is not None
        self._size_bytes += len(data)
        self.check_size(self._size_bytes)
        self._file.write(data)

    def fail(self, error: ServiceError) -> NoReturn:
        """A version with a damaged file is none."""
        raise refuse_member(self._name, "is damaged") from error

    def end(self) -> None:
        """To the disk itself: once it is in its place it must be whole."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Close the file that is open, if one is."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
