"""One stream: what was promised to be read, what may be sent, and what waits until it may."""

import asyncio
from collections import deque
from typing import Protocol

from service.protocols.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW,
    RST_STREAM,
    WINDOW_UPDATE,
    ErrorCode,
    StreamFault,
    pack_block,
    pack_head,
    pack_number,
)

STREAM_WINDOW = 1 << 20
CREDIT_BYTES = STREAM_WINDOW // 4  # credit is given back in steps of this
HIGH_WATER_BYTES = 1 << 16  # who sends waits while so much of a stream is unsent


class Handler(Protocol):
    """What is done with a request; every call comes on the event loop's thread."""

    def feed(self, chunk: bytes) -> None:
        """More of the body."""
        ...

    def end(self) -> None:
        """The body is whole."""
        ...

    def lose(self) -> None:
        """The caller has gone, or cancelled; nothing may be sent any more."""
        ...

    def watch(self, now: float) -> None:
        """Called once a second."""
        ...


class Outlet(Protocol):
    """The connection as its streams see it."""

    send_window: int
    max_frame_bytes: int
    strikes: int  # pings that asked for nothing; a client measures what it is sent with them

    @property
    def is_choked(self) -> bool:
        """The transport's buffer is full."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes, with all of this turn."""
        ...

    def take_prefix(self) -> bytes:
        """What the next header block begins with."""
        ...

    def forget(self, stream: "Stream") -> None:
        """Both sides have ended it."""
        ...

    def hold(self, stream: "Stream") -> None:
        """It has something to send, and may not yet."""
        ...


class Stream:
    """`handler` is set once the request's headers are read."""

    __slots__ = (
        "_outlet",
        "_pending",
        "_pending_bytes",
        "_uncredited",
        "_writers",
        "handler",
        "id",
        "is_ended",
        "is_remote_ended",
        "read_at",
        "receive_window",
        "send_window",
        "stuck_since",
    )

    def __init__(self, id: int, outlet: Outlet, send_window: int, now: float) -> None:
        self.id, self._outlet = id, outlet
        self.send_window, self.receive_window = send_window, STREAM_WINDOW
        self.handler: Handler | None = None
        self.is_remote_ended = self.is_ended = False
        self.read_at = now
        self.stuck_since: float | None = None
        self._uncredited = self._pending_bytes = 0
        self._pending: deque[bytes | memoryview] = (
            deque()
        )  # messages; at its end maybe trailers, as _Trailers
        self._writers: list[asyncio.Future[None]] = []

    # Receiving

    def receive(self, size_bytes: int) -> bool:
        """Payload of that size comes; False where that is more than the window allows."""
        self.receive_window -= size_bytes
        return self.receive_window >= 0

    def credit(self, size_bytes: int) -> None:
        """So much of what came is taken: the sender may send as much again."""
        self._uncredited += size_bytes
        if self._uncredited >= CREDIT_BYTES and not self.is_remote_ended and not self.is_ended:
            self.receive_window += self._uncredited
            self._outlet.write(pack_number(WINDOW_UPDATE, self.id, self._uncredited))
            self._uncredited = 0

    # Sending

    def send_headers(self, block: bytes) -> None:
        """A header block that opens the answer."""
        block = self._outlet.take_prefix() + block
        self._outlet.write(pack_block(self.id, 0, block, self._outlet.max_frame_bytes))

    def send_data(self, data: bytes) -> None:
        """Part of the answer's body; what may not be sent yet waits."""
        if self.is_ended:
            return
        if not self._pending and self._may_send(len(data)):
            self._send(data)
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        self.pump()

    def end(self, trailers: bytes) -> None:
        """Trailers as a header block, after what waits to be sent; nothing can follow."""
        if self.is_ended:
            return
        if self._pending:
            self._pending.append(_Trailers(trailers))
            return
        self._finish(trailers)

    def respond(self, headers: bytes, data: bytes, trailers: bytes) -> None:
        """A whole answer."""
        if self._pending or not self._may_send(len(data)):
            self.send_headers(headers)
            self.send_data(data)
            self.end(trailers)
            return
        outlet, id = self._outlet, self.id
        headers = outlet.take_prefix() + headers
        self.send_window -= len(data)
        outlet.send_window -= len(data)
        outlet.strikes = 0
        parts = [pack_head(len(headers), HEADERS, END_HEADERS, id), headers]
        parts += [pack_head(len(data), DATA, 0, id), data]
        parts += [pack_head(len(trailers), HEADERS, END_HEADERS | END_STREAM, id), trailers]
        outlet.write(b"".join(parts))
        self._close()

    def reset(self, code: ErrorCode) -> None:
        """End it at once."""
        if not self.is_ended:
            self.is_ended = True
            self._pending.clear()
            self._outlet.write(pack_number(RST_STREAM, self.id, code))
            self.release_writers()
            self._outlet.forget(self)

    async def drain(self) -> None:
        """Until little is left unsent; returns at once where nobody will send any more."""
        while not self.is_ended and (self._pending_bytes > HIGH_WATER_BYTES or self._outlet.is_choked):
            writer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writers.append(writer)
            await writer

    def release_writers(self) -> None:
        """Let those who wait in `drain` look again."""
        writers, self._writers = self._writers, []
        for writer in writers:
            if not writer.done():
                writer.set_result(None)

    def widen(self, increment: int) -> None:
        """The other side takes more; raises StreamFault."""
        self.send_window += increment
        if self.send_window > MAX_WINDOW:
            raise StreamFault(self.id, ErrorCode.FLOW_CONTROL_ERROR)
        self.pump()

    def pump(self) -> None:
        """Send of what waits as much as may be sent."""
        pending = self._pending
        while pending:
            first = pending[0]
            if isinstance(first, _Trailers):
                pending.popleft()
                self._finish(bytes(first))
                break
            may = min(self.send_window, self._outlet.send_window, self._outlet.max_frame_bytes, len(first))
            if may <= 0:
                self._outlet.hold(self)
                break
            self._send(first[:may])
            self._pending_bytes -= may
            if may == len(first):
                pending.popleft()
            else:
                pending[0] = memoryview(first)[may:]
        if self._pending_bytes <= HIGH_WATER_BYTES:
            self.release_writers()

    @property
    def is_stuck(self) -> bool:
        """Something waits to be sent."""
        return bool(self._pending)

    def _may_send(self, size_bytes: int) -> bool:
        return size_bytes <= min(self.send_window, self._outlet.send_window, self._outlet.max_frame_bytes)

    def _send(self, data: bytes | memoryview) -> None:
        self.send_window -= len(data)
        self._outlet.send_window -= len(data)
        self._outlet.strikes = 0
        self._outlet.write(pack_head(len(data), DATA, 0, self.id) + data)

    def _finish(self, trailers: bytes) -> None:
        trailers = self._outlet.take_prefix() + trailers
        self._outlet.write(pack_block(self.id, END_STREAM, trailers, self._outlet.max_frame_bytes))
        self._close()

    def _close(self) -> None:
        self.is_ended = True
        if not self.is_remote_ended:  # an answer that came before the request's end: the rest is not wanted
            self._outlet.write(pack_number(RST_STREAM, self.id, ErrorCode.NO_ERROR))
        self.release_writers()
        self._outlet.forget(self)


class _Trailers(bytes):
    """The last of what waits."""
