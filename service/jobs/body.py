"""Hands a body that arrives on the event loop to a thread that parses it as an ordinary file.

Holds a few megabytes at most: whoever feeds waits until the parser has taken them.
"""

import asyncio
import io
import threading
from collections import deque

HELD_BYTES = 4 << 20


class BodyLost(Exception):
    """The client went away before the end of its body."""


class BodyPipe(io.RawIOBase):
    """`feed`, `finish` and `fail` belong to the event loop, everything else to the parser's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[bytes | memoryview] = deque()
        self._held_bytes = 0
        self._condition = threading.Condition()
        self._drained = asyncio.Event()
        self._drained.set()
        self._is_complete = False
        self._is_lost = False
        self._is_abandoned = False

    # The event loop's side

    async def feed(self, data: bytes) -> None:
        """Give the parser `data`; returns when there is room for more, or nobody reads any more."""
        with self._condition:
            if data and not self._is_abandoned:
                self._chunks.append(data)
                self._held_bytes += len(data)
                self._condition.notify()
            if self._held_bytes >= HELD_BYTES:
                self._drained.clear()
        await self._drained.wait()

    def finish(self) -> None:
        """The body is complete."""
        with self._condition:
            self._is_complete = True
            self._condition.notify()

    def fail(self) -> None:
        """The client is gone: the parser gets BodyLost."""
        with self._condition:
            self._is_lost = True
            self._condition.notify()

    # The parser's side

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io passes a memoryview
        """At least one byte, or 0 at the end; raises BodyLost."""
        with self._condition:
            self._await_bytes(1)
            if not self._chunks:
                return 0
            chunk = self._chunks[0]
            count = min(len(chunk), len(buffer))
            buffer[:count] = chunk[:count]
            if count == len(chunk):
                self._chunks.popleft()
            else:
                self._chunks[0] = memoryview(chunk)[count:]
            self._held_bytes -= count
            self._make_room()
            return count

    def peek(self, count: int) -> bytes:
        """The first `count` bytes, fewer only at the end; they stay to be read."""
        with self._condition:
            self._await_bytes(count)
            return b"".join(self._chunks)[:count]

    def abandon(self) -> None:
        """Read no more: what is still fed is dropped."""
        with self._condition:
            self._is_abandoned = True
            self._chunks.clear()
            self._held_bytes = 0
            self._make_room()

    def _await_bytes(self, count: int) -> None:
        self._condition.wait_for(lambda: self._held_bytes >= count or self._is_complete or self._is_lost)
        if self._is_lost:
            raise BodyLost

    def _make_room(self) -> None:
        if self._held_bytes < HELD_BYTES and not self._drained.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drained.set)
