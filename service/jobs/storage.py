"""Room on the disk: the quota of all jobs, and a reserve that stays free for everybody else."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service.errors import StorageFull

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
RETRY_S = 60.0  # jobs end and are deleted in minutes, not in seconds
BALLAST = "ballast"  # a file given up when the disk is really full, so that the store can still say so
BALLAST_BYTES = 256 << 10  # several pages of SQLite's log, for each job that may run


@contextmanager
def storage_errors() -> Iterator[None]:
    """A full disk becomes StorageFull; other failures of the disk stay what they are."""
    try:
        yield
    except OSError as err:
        if err.errno in FULL:
            raise StorageFull("the disk that keeps batch jobs is full", RETRY_S) from err
        raise


def read_free_bytes(folder: Path) -> int:
    """What an ordinary user may still write on the disk of `folder`."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


class Storage:
    """Answers whether so many bytes more may be written under `root`."""

    def __init__(
        self,
        root: Path,
        quota_bytes: int,
        reserve_bytes: int,
        count_used: Callable[[], int],
        read_free: Callable[[Path], int] = read_free_bytes,
    ) -> None:
        """`count_used`: bytes of all accepted jobs; `read_free`: free bytes of a folder's disk."""
        self._root, self._quota_bytes, self._reserve_bytes = root, quota_bytes, reserve_bytes
        self._count_used, self._read_free = count_used, read_free

    def check_room(self, size_bytes: int) -> None:
        """Raises StorageFull unless `size_bytes` more keep the quota and leave the reserve free."""
        used = self._count_used()
        if used + size_bytes > self._quota_bytes:
            detail = (
                f"batch jobs hold {used} bytes, the limit is {self._quota_bytes} (SERVE_JOBS_QUOTA_BYTES)"
            )
            raise StorageFull(detail, RETRY_S)
        self.check_reserve(size_bytes)

    def check_reserve(self, size_bytes: int) -> None:
        """Raises StorageFull unless `size_bytes` more leave SERVE_JOBS_RESERVE_BYTES of the disk free."""
        if self._read_free(self._root) - size_bytes < self._reserve_bytes:
            detail = f"{self._reserve_bytes} bytes of the disk stay free (SERVE_JOBS_RESERVE_BYTES)"
            raise StorageFull(f"the disk that keeps batch jobs is nearly full; {detail}", RETRY_S)

    def fill_ballast(self) -> None:
        """Keep some room for the store to say that there is none; nothing where there is none already."""
        path = self._root / BALLAST
        if path.exists():
            return
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
        except OSError:
            path.unlink(missing_ok=True)

    def write_store(self, write: Callable[[], None]) -> None:
        """Call what changes the store, on a really full disk once more with the ballast's room.

        Raises SQLAlchemyError where that room is gone, too.
        """
        try:
            write()
        except SQLAlchemyError:
            try:
                (self._root / BALLAST).unlink()
            except OSError:
                pass
            else:
                return write()
            raise
