"""A job's folder under SERVE_JOBS_DIR, named by the job's id and locked while somebody fills or scores it.

The lock dies with its process, so that a folder without a lock and without a row in the store is a leftover.
"""

import fcntl
import os
import secrets
import shutil
from pathlib import Path

from service.jobs.storage import storage_errors

ID_BYTES = 16  # 128 random bits: an id is also the permission to read its results


class JobFolder:
    """Open and locked from `create` or `open_unlocked` to `release`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.id = path.name
        self._fd = fd

    @staticmethod
    def create(root: Path) -> "JobFolder":
        """A new one, readable by this user alone; raises StorageFull."""
        path = root / secrets.token_hex(ID_BYTES)
        with storage_errors():
            path.mkdir(mode=0o700)
        folder = JobFolder(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        fcntl.flock(folder._fd, fcntl.LOCK_EX)
        return folder

    @staticmethod
    def open_unlocked(path: Path) -> "JobFolder | None":
        """An existing one that nobody holds; None where it is held or gone."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        return JobFolder(path, fd)

    def release(self) -> None:
        """Give up the lock; the folder stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.release()

    def remove(self) -> None:
        """Remove it with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()
