"""A full disk, said in one line wherever a run writes: checkpoints, journal, recipe."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import DiskFull

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROBE_BYTES = 1 << 16  # recipe, journal and TensorBoard's first file take less


@contextmanager
def naming_a_full_disk(path: Path) -> Iterator[None]:
    """Translate the kernel's errors of a full disk into DiskFull, which names `path`."""
    try:
        yield
    except OSError as err:
        if err.errno not in FULL:
            raise
        raise DiskFull(path) from err


def require_space(directory: Path) -> None:
    """Make `directory` and see that a little can be written there, before anything is; raises DiskFull."""
    with naming_a_full_disk(directory):
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".probe"
        try:
            probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
