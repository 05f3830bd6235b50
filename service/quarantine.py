"""Remembers images that killed a decoder twice, alone, so that they kill no third worker.

Only the SHA-256 of an image is kept, for a while, and at most so many.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from service.errors import PoisonImage

QUARANTINE_S = 3600.0
MAX_IMAGES = 4096  # 4096 digests of 32 bytes: under 1 MB with Python's overhead


class Quarantine:
    """Hashes of poison images with an expiry, the oldest forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: OrderedDict[bytes, float] = OrderedDict()

    @property
    def holds_any(self) -> bool:
        """Whether `check` may refuse anything."""
        return bool(self._until)

    def add(self, image: bytes) -> None:
        """Refuse `image` from now on, for QUARANTINE_S seconds."""
        digest = hashlib.sha256(image).digest()
        self._until[digest] = self._clock() + QUARANTINE_S
        self._until.move_to_end(digest)
        if len(self._until) > MAX_IMAGES:
            self._until.popitem(last=False)

    def check(self, image: bytes) -> None:
        """Raises PoisonImage for an image in quarantine; hashes nothing while quarantine is empty."""
        if not self._until:
            return
        digest = hashlib.sha256(image).digest()
        until = self._until.get(digest)
        if until is None:
            return
        if until <= self._clock():
            del self._until[digest]
            return
        raise PoisonImage("this image crashed the decoder twice and is refused for a while")
