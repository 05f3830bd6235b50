"""The streams of a connection, and what frames do to them: open, feed, widen, reset, end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol

from service.protocols.h2.frames import (
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_TABLE_BYTES,
    DEFAULT_WINDOW,
    END_STREAM,
    LARGEST_FRAME_BYTES,
    MAX_WINDOW,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    Setting,
    StreamFault,
    pack_number,
    strip_padding,
)
from service.protocols.h2.headers import (
    SIZE_UPDATE_TO_ZERO,
    Head,
    HeaderBlock,
    HeaderBlocks,
    HeaderReader,
    Headers,
)
from service.protocols.h2.limits import CONNECTION_WINDOW, MAX_IDLE_FRAMES, Limits
from service.protocols.h2.stream import Handler, Stream

CREDIT_BYTES = CONNECTION_WINDOW // 2


class Wire(Protocol):
    """The connection as its streams see it."""

    is_choked: bool
    read_at: float

    def write(self, data: bytes) -> None:
        """Send bytes, with all of this turn."""
        ...

    def note_rest(self) -> None:
        """No stream is open any more."""
        ...


@dataclass(frozen=True, slots=True)
class Requests(Generic[Head]):
    """What is done with them: `understand` reads a list of headers, `open` makes the handler of a request."""

    understand: Callable[[Headers], Head]
    open: Callable[[Stream, Head], Handler]


class Streams(Generic[Head]):
    """Those that are not ended, by id. Later ones than `taken_until` are refused; `strikes`: see Outlet."""

    def __init__(self, wire: Wire, limits: Limits, requests: Requests[Head]) -> None:
        self._wire, self._limits, self._open_request = wire, limits, requests.open
        self.write = wire.write
        self._open: dict[int, Stream] = {}
        self._held: dict[int, Stream] = {}  # what waits for more of a window
        self._reader = HeaderReader(limits.max_header_bytes, requests.understand)
        self.blocks = HeaderBlocks(limits.max_header_bytes)
        self._data_stream: Stream | None = None
        self._data_flags = 0
        self._receive_window, self._uncredited = CONNECTION_WINDOW, 0
        self._initial_window = DEFAULT_WINDOW
        self._prefix = b""
        self._idle_frames = 0
        self.last_id, self.taken_until = 0, MAX_WINDOW
        self.send_window, self.max_frame_bytes, self.strikes = DEFAULT_WINDOW, DEFAULT_FRAME_BYTES, 0

    @property
    def is_choked(self) -> bool:
        """See stream.Outlet."""
        return self._wire.is_choked

    def list_open(self) -> list[Stream]:
        """Those that are not ended."""
        return list(self._open.values())

    # What streams use

    def take_prefix(self) -> bytes:
        """What the next header block begins with: the table's new size, once it was cut."""
        prefix, self._prefix = self._prefix, b""
        return prefix

    def forget(self, stream: Stream) -> None:
        """It is ended."""
        self._open.pop(stream.id, None)
        self._held.pop(stream.id, None)
        if not self._open:
            self._wire.note_rest()

    def hold(self, stream: Stream) -> None:
        """It waits for more of a window."""
        self._held[stream.id] = stream
        if stream.stuck_since is None:
            stream.stuck_since = self._wire.read_at

    # What the connection uses

    def watch(self, now: float) -> None:
        """Once a second: end what nobody takes, and let handlers look at the clock."""
        self._idle_frames = 0
        for stream in self.list_open():
            if not stream.is_stuck:
                stream.stuck_since = None
            if stream.stuck_since is not None and now - stream.stuck_since > self._limits.stuck_s:
                self.end(stream, ErrorCode.CANCEL)
            elif stream.handler is not None:
                stream.handler.watch(now)

    def end(self, stream: Stream, code: ErrorCode) -> None:
        """End it for the fault of its caller, who is told."""
        stream.reset(code)
        _lose(stream)

    def lose_all(self) -> None:
        """The connection is gone."""
        streams, self._open = self.list_open(), {}
        for stream in streams:
            _lose(stream)

    def release_writers(self) -> None:
        """The transport takes more."""
        for stream in self.list_open():
            stream.release_writers()

    def count_idle_frame(self) -> None:
        """One that brings nothing; raises ConnectionFault for too many."""
        self._idle_frames += 1
        if self._idle_frames > MAX_IDLE_FRAMES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    # Data

    def begin_data(self, size_bytes: int, flags: int, stream_id: int) -> None:
        """See parser.Sink."""
        self.blocks.check_order(DATA)
        if not stream_id or stream_id > self.last_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "data on a stream that was not opened")
        self._receive_window -= size_bytes
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window allows")
        self._uncredited += size_bytes
        if self._uncredited >= CREDIT_BYTES:
            self._receive_window += self._uncredited
            self.write(pack_number(WINDOW_UPDATE, 0, self._uncredited))
            self._uncredited = 0
        stream = self._data_stream = self._open.get(stream_id)
        self._data_flags = flags
        if stream is None:  # answered already: what was under way then is dropped
            return
        if stream.is_remote_ended or not stream.receive(size_bytes):
            self._data_stream = None
            is_late = stream.is_remote_ended
            self.end(stream, ErrorCode.STREAM_CLOSED if is_late else ErrorCode.FLOW_CONTROL_ERROR)

    def take_data(self, chunk: bytes, *, is_last: bool) -> None:
        """See parser.Sink."""
        stream = self._data_stream
        if stream is None or stream.is_ended:
            return
        stream.read_at = self._wire.read_at
        if stream.handler is not None:
            stream.handler.feed(chunk)
        if is_last and self._data_flags & END_STREAM:
            _end_request(stream)

    def take_padded_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        """A whole DATA frame, with padding or empty; padding counts in the windows (section 6.9.1)."""
        content = strip_padding(payload, flags)
        self.begin_data(len(payload), flags, stream_id)
        if self._data_stream is not None:
            self._data_stream.credit(len(payload) - len(content))
        if not content and not flags & END_STREAM:
            self.count_idle_frame()
        self.take_data(content, is_last=True)

    # Headers

    def take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        """A request, or the trailers of one; raises ConnectionFault, StreamFault."""
        self._take_block(self.blocks.begin(flags, stream_id, payload, self._wire.read_at))

    def take_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        """More of a header block; raises ConnectionFault, StreamFault."""
        self.count_idle_frame()
        self._take_block(self.blocks.go_on(flags, stream_id, payload))

    def _take_block(self, block: HeaderBlock | None) -> None:
        if block is None:
            return
        head = self._reader.read(block.content)  # always: the table must stay the same as the client's
        flags, stream_id = block.flags, block.stream_id
        stream = self._open.get(stream_id)
        if stream is not None:
            if stream.is_remote_ended or not flags & END_STREAM:
                raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR)
            _end_request(stream)  # trailers, which nobody here asks for
            return
        if stream_id <= self.last_id:  # trailers of one that was answered before its end
            return
        self.last_id = stream_id
        if stream_id > self.taken_until or len(self._open) >= self._limits.max_streams:
            self.count_idle_frame()
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM)
        self._open_stream(stream_id, head, is_ended=bool(flags & END_STREAM))

    def _open_stream(self, stream_id: int, head: Head, *, is_ended: bool) -> None:
        stream = Stream(stream_id, self, self._initial_window, self._wire.read_at)
        stream.is_remote_ended = is_ended
        self._open[stream_id] = stream
        stream.handler = self._open_request(stream, head)
        if is_ended and not stream.is_ended:
            stream.handler.end()

    # Windows, resets and settings

    def take_window_update(self, stream_id: int, increment: int) -> None:
        """The other side takes more; raises ConnectionFault, StreamFault."""
        if stream_id > self.last_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window of a stream that was not opened")
        if not increment and stream_id:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR)
        if not increment:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window is widened by nothing")
        if stream_id:
            stream = self._open.get(stream_id)
            if stream is not None:
                stream.stuck_since = None
                stream.widen(increment)
            return
        self.send_window += increment
        if self.send_window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window of more than 2^31-1 bytes")
        held, self._held = self._held, {}
        for stream in held.values():
            stream.stuck_since = None
            stream.pump()

    def take_reset(self, stream_id: int) -> None:
        """The caller has cancelled; raises ConnectionFault."""
        if not stream_id or stream_id > self.last_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a reset of a stream that was not opened")
        self.count_idle_frame()
        stream = self._open.get(stream_id)
        if stream is not None:
            self.forget(stream)
            _lose(stream)

    def apply_setting(self, name: int, value: int) -> None:
        """One of the other side's; raises ConnectionFault."""
        if name == Setting.INITIAL_WINDOW_SIZE:
            self._resize_windows(value)
        elif name == Setting.MAX_FRAME_SIZE:
            if not DEFAULT_FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame size that cannot be")
            self.max_frame_bytes = value
        elif name == Setting.HEADER_TABLE_SIZE and value < DEFAULT_TABLE_BYTES:
            self._prefix = SIZE_UPDATE_TO_ZERO  # it was never used; now that is said
        elif name == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a switch that is neither on nor off")

    def _resize_windows(self, value: int) -> None:
        more, self._initial_window = value - self._initial_window, value
        if value > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window of more than 2^31-1 bytes")
        for stream in self.list_open():
            try:
                stream.widen(more)
            except StreamFault as fault:
                raise ConnectionFault(fault.code, "a window of more than 2^31-1 bytes") from None


def _end_request(stream: Stream) -> None:
    stream.is_remote_ended = True
    if stream.handler is not None and not stream.is_ended:
        stream.handler.end()


def _lose(stream: Stream) -> None:
    stream.is_ended = True
    stream.release_writers()
    if stream.handler is not None:
        stream.handler.lose()
