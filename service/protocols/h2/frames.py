"""Frames of HTTP/2: their heads, types, flags, settings and errors. RFC 9113 sections 4, 6 and 7."""

import struct
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = struct.Struct(">HBBBI")  # the length's upper 16 and lower 8 bits, type, flags, stream
HEAD_BYTES: Final = 9
STREAM_MASK: Final = 0x7FFF_FFFF  # the highest bit is reserved
MAX_WINDOW: Final = 0x7FFF_FFFF
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME_BYTES: Final = 16_384
LARGEST_FRAME_BYTES: Final = 0xFF_FFFF
DEFAULT_TABLE_BYTES: Final = 4_096

# Types; plain integers, as they are compared for every frame.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

# Flags.
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20


class Setting(IntEnum):
    """Section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """The other side broke the protocol, and the connection ends with `code`; section 5.4.1."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class StreamFault(Exception):
    """One stream ends with `code`, the connection goes on; section 5.4.2."""

    def __init__(self, stream_id: int, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.stream_id, self.code = stream_id, code


def pack_head(size_bytes: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine bytes before a payload of `size_bytes`."""
    return HEAD.pack(size_bytes >> 8, size_bytes & 0xFF, kind, flags, stream_id)


def pack_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return pack_head(len(payload), kind, flags, stream_id) + payload


def pack_settings(settings: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(struct.pack(">HI", name, value) for name, value in settings.items())
    return pack_frame(SETTINGS, 0, 0, payload)


def pack_number(kind: int, stream_id: int, number: int) -> bytes:
    """A frame whose payload is one 32-bit number: RST_STREAM, WINDOW_UPDATE."""
    return pack_frame(kind, 0, stream_id, struct.pack(">I", number))


def pack_block(stream_id: int, flags: int, block: bytes, max_bytes: int) -> bytes:
    """A header block: HEADERS, and CONTINUATION where it is larger than a frame may be."""
    if len(block) <= max_bytes:
        return pack_frame(HEADERS, flags | END_HEADERS, stream_id, block)
    pieces = [block[at : at + max_bytes] for at in range(0, len(block), max_bytes)]
    frames = [pack_frame(HEADERS, flags, stream_id, pieces[0])]
    frames += [pack_frame(CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]]
    return b"".join([*frames, pack_frame(CONTINUATION, END_HEADERS, stream_id, pieces[-1])])


def read_number(payload: bytes) -> int:
    """The 32-bit number that is a whole payload; raises ConnectionFault."""
    if len(payload) != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame of another size")
    return int.from_bytes(payload)


def strip_padding(payload: bytes, flags: int) -> bytes:
    """The payload without its padding, of a frame that may have some; raises ConnectionFault."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
