"""Header blocks: read with hpack (RFC 7541), written as literals that need no table.

A client that repeats itself sends the same bytes for the same headers, as long as the table does not change.
So what a block meant is remembered until it does, and most calls cost a dictionary's look-up.
"""

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from service.protocols.h2.frames import (
    CONTINUATION,
    END_HEADERS,
    HAS_PRIORITY,
    ConnectionFault,
    ErrorCode,
    strip_padding,
)

Headers = tuple[tuple[bytes, bytes], ...]
Head = TypeVar("Head")

REMEMBERED = 64  # blocks; a client has some methods and some sets of metadata
SIZE_UPDATE_TO_ZERO = b"\x20"  # RFC 7541 section 6.3
STATUS_200 = b"\x88"  # index 8 of the static table


class HeaderReader(Generic[Head]):
    """One per connection: every block that comes must be read, in order."""

    def __init__(self, max_bytes: int, understand: Callable[[Headers], Head]) -> None:
        """`max_bytes`: of a list of headers, as SETTINGS_MAX_HEADER_LIST_SIZE counts; `understand` makes what
        `read` returns.
        """
        self._decoder = Decoder(max_bytes)
        self._understand = understand
        self._known: dict[bytes, Head] = {}

    def read(self, block: bytes) -> Head:
        """What the headers of a whole block say; raises ConnectionFault."""
        known = self._known.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table
        entries = table.dynamic_entries
        before = (len(entries), entries[0] if entries else None, table.maxsize)
        try:
            headers = tuple(
                (bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)
            )
        except OversizedHeaderListError as err:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "metadata is too large") from err
        except (HPACKError, IndexError, ValueError) as err:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block cannot be read") from err
        entries = table.dynamic_entries
        after = (len(entries), entries[0] if entries else None, table.maxsize)
        if before[0] != after[0] or before[1] is not after[1] or before[2] != after[2]:
            self._known.clear()
            return self._understand(headers)
        head = self._understand(headers)
        if len(self._known) < REMEMBERED:
            self._known[block] = head
        return head


class HeaderBlock(NamedTuple):
    """A whole one, with the flags of the HEADERS frame it began with."""

    flags: int
    stream_id: int
    content: bytes


class HeaderBlocks:
    """Puts together what HEADERS and CONTINUATION frames bring (section 6.10). `since`: when the one that is
    not whole began.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._flags = self._stream_id = self._size_bytes = 0
        self.since: float | None = None

    def check_order(self, kind: int) -> None:
        """Raises ConnectionFault for anything within a header block but its continuation."""
        if self._parts and kind != CONTINUATION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "headers were not ended")

    def begin(self, flags: int, stream_id: int, payload: bytes, now: float) -> HeaderBlock | None:
        """A HEADERS frame, None while its block is not whole; raises ConnectionFault."""
        if not stream_id % 2:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients open streams of odd numbers")
        content = strip_padding(payload, flags)
        if flags & HAS_PRIORITY:
            if len(content) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "headers without their priority")
            content = content[5:]
        if flags & END_HEADERS:
            return HeaderBlock(flags, stream_id, content)
        self._parts, self._size_bytes, self.since = [content], len(content), now
        self._flags, self._stream_id = flags, stream_id
        return None

    def go_on(self, flags: int, stream_id: int, payload: bytes) -> HeaderBlock | None:
        """A CONTINUATION frame, None while the block is not whole; raises ConnectionFault."""
        if not self._parts or stream_id != self._stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a continuation of nothing")
        self._parts.append(payload)
        self._size_bytes += len(payload)
        if self._size_bytes > self._max_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "metadata is too large")
        if not flags & END_HEADERS:
            return None
        content, self._parts, self.since = b"".join(self._parts), [], None
        return HeaderBlock(self._flags, stream_id, content)


def write_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Literals without indexing, names (in lower case) and values as they are; RFC 7541 section 6.2.2."""
    return b"".join([b"\0%b%b" % (_write_string(name), _write_string(value)) for name, value in headers])


def _write_string(text: bytes) -> bytes:
    """A string literal without Huffman's code; RFC 7541 sections 5.1 and 5.2."""
    size_bytes = len(text)
    if size_bytes < 0x7F:
        return bytes((size_bytes,)) + text
    rest = size_bytes - 0x7F
    prefix = bytearray((0x7F,))
    while rest >= 0x80:
        prefix.append(rest & 0x7F | 0x80)
        rest >>= 7
    prefix.append(rest)
    return bytes(prefix) + text
