"""Bytes of a connection, as frames: payload of DATA as it comes, every other frame once it is whole."""

from typing import Protocol

from service.protocols.h2.frames import (
    DATA,
    DEFAULT_FRAME_BYTES,
    HEAD,
    HEAD_BYTES,
    PADDED,
    PREFACE,
    SETTINGS,
    STREAM_MASK,
    ConnectionFault,
    ErrorCode,
)
from service.protocols.h2.limits import FRAME_BYTES


class Sink(Protocol):
    """What takes the frames; raises ConnectionFault."""

    def take_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """A whole frame; of DATA only one with padding."""
        ...

    def begin_data(self, size_bytes: int, flags: int, stream_id: int) -> None:
        """A DATA frame with that much payload, which follows by `take_data`; never for one that is empty."""
        ...

    def take_data(self, chunk: bytes, *, is_last: bool) -> None:
        """More of that payload."""
        ...


class FrameParser:
    """`max_bytes`: of a frame that is not DATA. `rest_since`: when the frame began that is not whole."""

    def __init__(self, sink: Sink, max_bytes: int) -> None:
        self._sink, self._max_bytes = sink, max(max_bytes, DEFAULT_FRAME_BYTES)
        self._rest = b""
        self._data_left = 0  # of the DATA frame that is being read
        self._is_greeted = False
        self.has_settings = False
        self.rest_since = 0.0

    @property
    def is_amid(self) -> bool:
        """A frame other than DATA has begun and is not whole."""
        return bool(self._rest)

    def feed(self, data: bytes, now: float) -> None:
        """More bytes; raises ConnectionFault."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        else:
            self.rest_since = now
        at, size = self._greet(data), len(data)
        while at < size:
            if self._data_left:
                end = min(size, at + self._data_left)
                self._data_left -= end - at
                self._sink.take_data(data[at:end], is_last=not self._data_left)
                at = end
                continue
            if not self._is_greeted or size - at < HEAD_BYTES:
                break
            high, low, kind, flags, stream_id = HEAD.unpack_from(data, at)
            length = high << 8 | low
            if length > FRAME_BYTES or (kind != DATA and length > self._max_bytes):
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame larger than any that is read here")
            if not self.has_settings and kind != SETTINGS:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the preface has no settings")
            if kind == DATA and length and not flags & PADDED:
                at += HEAD_BYTES
                self._data_left = length
                self._sink.begin_data(length, flags, stream_id & STREAM_MASK)
                continue
            end = at + HEAD_BYTES + length
            if end > size:
                break
            self.has_settings = True
            self.rest_since = now
            self._sink.take_frame(kind, flags, stream_id & STREAM_MASK, data[at + HEAD_BYTES : end])
            at = end
        if at < size:
            self._rest = data[at:]

    def _greet(self, data: bytes) -> int:
        """How much of `data` is the client's preface."""
        if self._is_greeted:
            return 0
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this port speaks HTTP/2")
        if len(data) < len(PREFACE):
            return 0
        self._is_greeted = True
        return len(PREFACE)
