"""A closed loop of gRPC calls that costs little: HTTP/2 frames written and read by hand.

Python's gRPC client takes more of a core than the server it measures. Here headers are literals that never
enter a table, so that they are the same bytes every time; answers are counted by their frames (RFC 9113) and
gRPC's five bytes before a message. An answer without a message is an error.
"""

import asyncio
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import uvloop

from bench.load import Load

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
FRAME_HEAD, MAX_FRAME = 9, 16_384
SETTING_WINDOW = 4  # SETTINGS_INITIAL_WINDOW_SIZE


@dataclass(frozen=True, slots=True)
class Method:
    """Where calls go. `is_stream`: one call a connection carries all its messages, both ways."""

    port: int
    path: str
    is_stream: bool

    def write_head(self) -> bytes:
        """The header block of a call: literals without indexing (RFC 7541, 6.2.2)."""
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": self.path,
            ":authority": f"127.0.0.1:{self.port}",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        return b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields.items())


class RpcCaller(asyncio.Protocol):
    """One connection that keeps `depth` messages under way."""

    def __init__(self, method: Method, messages: Sequence[bytes], depth: int, until: float) -> None:
        self._method, self._head, self._messages, self._depth = method, method.write_head(), messages, depth
        self._until = until
        self._next = 0
        self._stream = 1
        self._window = INITIAL_WINDOW  # of the connection and, for a stream, at least that of the stream
        self._got = bytearray()
        self._message = bytearray()
        self._began: dict[int, float] = {}
        self._answered: set[int] = set()
        self._order: deque[float] = deque()
        self._waiting = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies_s: list[float] = []
        self.errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, open every window, begin."""
        self._transport = cast(asyncio.Transport, transport)
        setting = struct.pack("!HI", SETTING_WINDOW, MAX_WINDOW)
        more = struct.pack("!I", MAX_WINDOW - INITIAL_WINDOW)
        hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, setting)
        transport.write(hello + _frame(WINDOW_UPDATE, 0, 0, more))  # type: ignore[attr-defined]  # a Transport
        if self._method.is_stream:
            self._transport.write(_frame(HEADERS, END_HEADERS, 1, self._head))
        self._waiting = self._depth
        self._send()

    def data_received(self, data: bytes) -> None:
        """Whole frames, and what is left of the last."""
        self._got += data
        start = 0
        while len(self._got) - start >= FRAME_HEAD:
            size = int.from_bytes(self._got[start : start + 3], "big")
            kind, flags = self._got[start + 3], self._got[start + 4]
            end = start + FRAME_HEAD + size
            if len(self._got) < end:
                break
            stream = int.from_bytes(self._got[start + 5 : start + FRAME_HEAD], "big")
            self._take(kind, flags, stream, bytes(self._got[start + FRAME_HEAD : end]))
            start = end
        del self._got[:start]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, wanted or not."""
        if not self.ended.done():
            self.errors += 1
            self.ended.set_result(None)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA and self._method.is_stream:
            self._read_messages(payload)
        elif kind == DATA:
            self._answered.add(stream)
        elif kind == WINDOW_UPDATE and (stream == 0 or self._method.is_stream):
            self._window += int.from_bytes(payload, "big") if stream == 0 else 0
        elif kind == PING and not flags & ACK:
            self._transport.write(_frame(PING, ACK, 0, payload))
        elif kind == SETTINGS and not flags & ACK:
            self._transport.write(_frame(SETTINGS, ACK, 0, b""))
        if kind in (DATA, HEADERS, RST_STREAM) and (flags & END_STREAM or kind == RST_STREAM):
            self._end_call(stream)

    def _read_messages(self, payload: bytes) -> None:
        self._message += payload
        while len(self._message) >= 5:
            size = 5 + int.from_bytes(self._message[1:5], "big")
            if len(self._message) < size:
                return
            del self._message[:size]
            self._note(self._order.popleft(), is_answer=True)

    def _end_call(self, stream: int) -> None:
        if self._method.is_stream:  # the server ended it before we did
            self.errors += 1
            self._finish()
        elif stream in self._began:
            self._note(self._began.pop(stream), is_answer=stream in self._answered)
            self._answered.discard(stream)

    def _note(self, began: float, *, is_answer: bool) -> None:
        now = time.perf_counter()
        if is_answer:
            self.latencies_s.append(now - began)
        else:
            self.errors += 1
        if now < self._until:
            self._waiting += 1
        elif not self._began and not self._order and not self._waiting:
            self._finish()

    def _send(self) -> None:
        parts: list[bytes] = []
        while self._waiting and not self.ended.done():
            message = self._messages[self._next % len(self._messages)]
            if len(message) > self._window:  # the server will open it
                break
            self._window -= len(message)
            self._waiting -= 1
            self._next += 1
            parts += self._write_message(message)
        if parts:
            self._transport.write(b"".join(parts))

    def _write_message(self, message: bytes) -> list[bytes]:
        now = time.perf_counter()
        if self._method.is_stream:
            self._order.append(now)
            return _split(1, message, 0)
        stream, self._stream = self._stream, self._stream + 2
        self._began[stream] = now
        return [_frame(HEADERS, END_HEADERS, stream, self._head), *_split(stream, message, END_STREAM)]

    def _finish(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
            self._transport.close()


def run_rpc_load(
    method: Method, messages: Sequence[bytes], callers: int, connections: int, seconds: float
) -> Load:
    """`callers` messages under way together over `connections`; `messages` as protobuf writes them."""
    return uvloop.run(_run(method, messages, callers, connections, seconds))


async def _run(
    method: Method, messages: Sequence[bytes], callers: int, connections: int, seconds: float
) -> Load:
    loop = asyncio.get_running_loop()
    framed = [struct.pack("!BI", 0, len(message)) + message for message in messages]
    began = time.perf_counter()
    all_callers = [
        RpcCaller(method, framed, callers // connections, began + seconds) for _ in range(connections)
    ]
    for caller in all_callers:
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", method.port)  # type: ignore[misc]
    await asyncio.gather(*(caller.ended for caller in all_callers))
    took_s = time.perf_counter() - began
    latencies = [latency for caller in all_callers for latency in caller.latencies_s]
    return Load.sum_up(callers, latencies, sum(caller.errors for caller in all_callers), took_s)


def _split(stream: int, message: bytes, flags: int) -> list[bytes]:
    last = (len(message) - 1) // MAX_FRAME
    return [
        _frame(
            DATA, flags if index == last else 0, stream, message[index * MAX_FRAME : (index + 1) * MAX_FRAME]
        )
        for index in range(last + 1)
    ]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + payload


def _string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()  # under 127 bytes, no Huffman
