"""One HTTP/2 connection: its transport, its clock, and how it ends.

What is written within one turn of the loop leaves in one system call. While the transport's buffer is full
nothing is read, so nobody can make it grow by asking.
"""

import asyncio
import time
from typing import Generic, cast

from service.protocols.h2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    GOAWAY,
    HEADERS,
    MAX_WINDOW,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    Setting,
    StreamFault,
    pack_frame,
    pack_number,
    pack_settings,
    read_number,
)
from service.protocols.h2.headers import Head
from service.protocols.h2.limits import CONNECTION_WINDOW, FRAME_BYTES, MAX_PING_STRIKES, Limits
from service.protocols.h2.parser import FrameParser
from service.protocols.h2.stream import STREAM_WINDOW, Stream
from service.protocols.h2.streams import Requests, Streams

EVERY_STREAM = MAX_WINDOW  # of GOAWAY: whatever comes until it is read is answered


class H2Connection(asyncio.Protocol, Generic[Head]):
    """`connections` holds those that are open; `watch` is called once a second."""

    def __init__(
        self, limits: Limits, connections: "set[H2Connection[Head]]", requests: Requests[Head]
    ) -> None:
        self._limits, self._connections = limits, connections
        self._loop = asyncio.get_running_loop()
        self._began = self._quiet_since = self.read_at = time.monotonic()
        self._out: list[bytes] = []
        self._streams = Streams(self, limits, requests)
        self._parser = FrameParser(self, limits.max_header_bytes)
        self.begin_data, self.take_data = self._streams.begin_data, self._streams.take_data
        self._pinged_at: float | None = None
        self._client_pinged_at = 0.0
        self._aged_at: float | None = None
        self.is_choked = False

    @property
    def streams(self) -> list[Stream]:
        """Those that are not ended."""
        return self._streams.list_open()

    def write(self, data: bytes) -> None:
        """Send with all of this turn."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def note_rest(self) -> None:
        """No stream is open any more."""
        self._quiet_since = time.monotonic()
        if self._streams.taken_until != EVERY_STREAM:
            self.close()

    def say_goodbye(self, *, is_last: bool) -> None:
        """No new streams, please; `is_last`: those that come from now on are not answered."""
        if self.transport.is_closing():
            return
        self._streams.taken_until = self._streams.last_id if is_last else EVERY_STREAM
        self._go_away(self._streams.taken_until, ErrorCode.NO_ERROR, b"stopping")
        if is_last and not self.streams:
            self.close()

    def close(self) -> None:
        """Once what was written is sent."""
        self._flush()
        self.transport.close()

    def abort(self) -> None:
        """At once."""
        self.transport.abort()

    def watch(self, now: float) -> None:
        """Cut off who is slow or silent, send on who has been here for long."""
        limits, streams = self._limits, self._streams
        if self.transport.is_closing():
            return
        if not self._parser.has_settings and now - self._began > limits.header_timeout_s:
            self.abort()
        elif self._is_half_read(now - limits.header_timeout_s):
            self._fail(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a frame without its end"))
        elif self._pinged_at is not None and now - self._pinged_at > limits.pong_s:
            self.abort()
        elif not self.streams and now - self._quiet_since > limits.idle_s:
            self._go_away(streams.last_id, ErrorCode.NO_ERROR, b"idle")
            self.close()
        else:
            self._watch_age(now)
            if self._pinged_at is None and now - self.read_at > limits.ping_s:
                self._pinged_at = now
                self.write(pack_frame(PING, 0, 0, bytes(8)))
            streams.watch(now)

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        if len(self._connections) > self._limits.max_connections:
            self.abort()
            return
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: self._limits.max_streams,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_FRAME_SIZE: FRAME_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: self._limits.max_header_bytes,
        }
        self.write(
            pack_settings(settings) + pack_number(WINDOW_UPDATE, 0, CONNECTION_WINDOW - DEFAULT_WINDOW)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._connections.discard(self)
        self._out.clear()
        self._streams.lose_all()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self.is_choked = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.is_choked = False
        self.transport.resume_reading()
        self._streams.release_writers()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.read_at, self._pinged_at = time.monotonic(), None
        if self.transport.is_closing():
            return
        try:
            self._parser.feed(data, self.read_at)
        except ConnectionFault as fault:
            self._fail(fault)

    # Frames other than data without padding, which go to the streams

    def take_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """See parser.Sink."""
        self._streams.blocks.check_order(kind)
        try:
            self._sort_frame(kind, flags, stream_id, payload)
        except StreamFault as fault:
            stream = next((one for one in self.streams if one.id == fault.stream_id), None)
            if stream is not None:
                self._streams.end(stream, fault.code)
            else:
                self.write(pack_number(RST_STREAM, fault.stream_id, fault.code))

    def _sort_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._streams.take_headers(flags, stream_id, payload)
        elif kind == CONTINUATION:
            self._streams.take_continuation(flags, stream_id, payload)
        elif kind == DATA:
            self._streams.take_padded_data(flags, stream_id, payload)
        elif kind == WINDOW_UPDATE:
            self._streams.take_window_update(stream_id, read_number(payload) & MAX_WINDOW)
        elif kind == RST_STREAM:
            read_number(payload)
            self._streams.take_reset(stream_id)
        elif kind == SETTINGS:
            self._take_settings(flags, stream_id, payload)
        elif kind == PING:
            self._take_ping(flags, stream_id, payload)
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients promise nothing")
        elif kind == GOAWAY and stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        elif kind == PRIORITY and (not stream_id or len(payload) != 5):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY without a stream or of another size")
        else:  # priorities, goodbyes and frames of extensions: nothing follows from them
            self._streams.count_idle_frame()

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id or len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "settings of another size, or on a stream")
        if flags & ACK:
            return
        self._streams.count_idle_frame()
        for at in range(0, len(payload), 6):
            name, value = int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6])
            self._streams.apply_setting(name, value)
        self.write(pack_frame(SETTINGS, ACK, 0))

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id or len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a ping of another size, or on a stream")
        if flags & ACK:
            return
        self._streams.count_idle_frame()
        if self.read_at - self._client_pinged_at < self._limits.client_ping_s:
            self._streams.strikes += 1
            if self._streams.strikes > MAX_PING_STRIKES:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
        self._client_pinged_at = self.read_at
        self.write(pack_frame(PING, ACK, 0, payload))

    # Inside

    def _flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            if not self.transport.is_closing():
                self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _watch_age(self, now: float) -> None:
        limits = self._limits
        if self._aged_at is None:
            if now - self._began > limits.max_age_s:
                self._aged_at = now
                self._go_away(EVERY_STREAM, ErrorCode.NO_ERROR, b"max_age")
        elif now - self._aged_at > limits.age_grace_s:
            self.close()
        elif self._streams.taken_until == EVERY_STREAM:  # the first goodbye was read by now
            self.say_goodbye(is_last=True)

    def _is_half_read(self, since: float) -> bool:
        """A frame other than data, or a header block, has begun before then and is not whole."""
        block_since = self._streams.blocks.since
        is_frame_old = self._parser.is_amid and self._parser.rest_since < since
        return is_frame_old or (block_since is not None and block_since < since)

    def _fail(self, fault: ConnectionFault) -> None:
        if not self.transport.is_closing():
            self._go_away(self._streams.last_id, fault.code, fault.reason.encode())
            self.close()

    def _go_away(self, last_id: int, code: ErrorCode, reason: bytes) -> None:
        self.write(pack_frame(GOAWAY, 0, 0, last_id.to_bytes(4) + code.to_bytes(4) + reason))
