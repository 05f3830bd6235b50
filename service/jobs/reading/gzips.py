"""gzip as a stream that refuses to grow more than a hundred times."""

import io
import zlib
from typing import BinaryIO

from service.errors import BadRequest
from service.jobs.reading.members import CHUNK_BYTES, MAX_RATIO

GZIP = 16 + zlib.MAX_WBITS
HEADROOM_BYTES = 1 << 16  # tar pads every file to half a kilobyte and its end to ten


class GrowsTooMuch(Exception):
    """More than MAX_RATIO times came out of what went in."""


class GzipStream(io.RawIOBase):
    """What `body`, one or more gzip members, unpacks to; raises BadRequest, GrowsTooMuch."""

    def __init__(self, body: BinaryIO) -> None:
        self._body = body
        self._inflater = zlib.decompressobj(GZIP)
        self._packed = b""
        self._packed_bytes = 0
        self._unpacked_bytes = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io passes a memoryview
        """At least one byte, or 0 at the end."""
        while True:
            if self._inflater.eof and not self._begin_member():
                return 0
            data = self._inflate(len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _inflate(self, room: int) -> bytes:
        try:
            data = self._inflater.decompress(self._packed, room)  # nothing in: what there was no room for
            if not data and not self._packed and not self._inflater.eof:
                if not self._refill():
                    raise BadRequest("the gzip body ends early")
                data = self._inflater.decompress(self._packed, room)
        except zlib.error as err:
            raise BadRequest("the gzip body is damaged") from err
        self._packed = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
        self._unpacked_bytes += len(data)
        if self._unpacked_bytes > MAX_RATIO * self._packed_bytes + HEADROOM_BYTES:
            raise GrowsTooMuch
        return data

    def _begin_member(self) -> bool:
        if not self._refill():
            return False
        self._inflater = zlib.decompressobj(GZIP)
        return True

    def _refill(self) -> bool:
        if not self._packed:
            self._packed = self._body.read(CHUNK_BYTES)
            self._packed_bytes += len(self._packed)
        return bool(self._packed)
