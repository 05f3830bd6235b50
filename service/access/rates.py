"""How many images a second a key may ask for, counted together by all frontends of this machine.

A bucket of tokens, kept as one number: the moment at which it will be full again ("generic cell rate
algorithm", ITU-T I.371). The numbers lie in a file that every frontend maps; a lock of the kernel's on 16
bytes makes each step whole, and is given back by the kernel when its holder dies. Machines do not share: what
a key may do is per instance, and a balancer in front of n of them gives n times as much.
"""

import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.access.keys import ApiKey

SLOT = struct.Struct("<Qd")  # the key's tag (0: free); monotonic seconds at which its bucket is full
SLOTS = 1 << 16
PROBES = 256
# A lock is held for microseconds. Its holder may be off the processor for longer, or be stopped: then the
# count goes on without the lock, a little inexact: nothing may stop a frontend's event loop.
TRIES = 200


@dataclass(frozen=True, slots=True)
class RateState:
    """`burst` images at once and one more every 1 / `rate_per_s`; `left` now, all of them in `full_in_s`."""

    rate_per_s: float
    burst: int
    left: int
    full_in_s: float


class RateTable:
    """The buckets of all keys, in the file `path`, which whoever comes first makes."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.monotonic, *, is_shared: bool = True
    ) -> None:
        """`is_shared` False: no other process counts, so nothing is locked."""
        self._clock, self._is_shared = clock, is_shared
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, SLOTS * SLOT.size)
        self._map = mmap.mmap(self._fd, SLOTS * SLOT.size)
        self._offsets: dict[str, int] = {}

    def take(self, key: ApiKey, images: int = 1) -> float:
        """Take tokens for `images`: 0.0, or the seconds after which they will be there; then none are taken.

        More than the bucket holds are taken when it is full, and are waited for by whoever comes next.
        """
        if key.rate_per_s is None:
            return 0.0
        offset, each_s = self._find(key.id), 1 / key.rate_per_s
        is_locked = self._is_shared and self._lock(offset)
        try:
            now = self._clock()
            tag, full_at = SLOT.unpack_from(self._map, offset)
            begin = max(full_at, now)
            wait_s = begin + min(images, key.burst) * each_s - key.burst * each_s - now
            if wait_s > 1e-9:
                return float(wait_s)
            SLOT.pack_into(self._map, offset, tag, begin + images * each_s)
            return 0.0
        finally:
            if is_locked:
                self._unlock(offset)

    def look(self, key: ApiKey) -> RateState | None:
        """The bucket as it is; None for a key without a rate."""
        if key.rate_per_s is None:
            return None
        _, full_at = SLOT.unpack_from(self._map, self._find(key.id))
        full_in_s = max(0.0, full_at - self._clock())
        left = int(key.burst - full_in_s * key.rate_per_s + 1e-6)
        return RateState(key.rate_per_s, key.burst, max(0, left), full_in_s)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()
        os.close(self._fd)

    def _find(self, id: str) -> int:
        offset = self._offsets.get(id)
        if offset is None:
            offset = self._offsets[id] = self._claim(int.from_bytes(hashlib.sha256(id.encode()).digest()[:8]))
        return offset

    def _claim(self, tag: int) -> int:
        """The slot of that tag: its own, or the first free one from where it should be."""
        tag = tag or 1
        for step in range(PROBES):
            offset = (tag + step) % SLOTS * SLOT.size
            is_locked = self._is_shared and self._lock(offset)
            found, _ = SLOT.unpack_from(self._map, offset)
            if found == 0:
                SLOT.pack_into(self._map, offset, tag, 0.0)
            if is_locked:
                self._unlock(offset)
            if found in (0, tag):
                return offset
        return tag % SLOTS * SLOT.size  # shared with another key; it takes tens of thousands to get here

    def _lock(self, offset: int) -> bool:
        for _ in range(TRIES):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, SLOT.size, offset)
                return True
            except OSError:
                os.sched_yield()
        return False

    def _unlock(self, offset: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, SLOT.size, offset)
