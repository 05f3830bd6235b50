"""Tells whether a file is still the one that was read."""

import os
from pathlib import Path

Stamp = tuple[int, int, int]  # nanoseconds of the last change, bytes, inode


def stamp_file(path: Path) -> Stamp | None:
    """What differs between two files of one name, None without one. Follows links: Kubernetes swaps those."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
