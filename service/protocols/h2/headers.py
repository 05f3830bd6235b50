"""Header blocks: read with hpack (RFC 7541), written as literals that need no table.

A client that repeats itself sends the same bytes for the same headers, as long as the table does not change.
So what a block meant is remembered until it does, and most calls cost a dictionary's look-up.
"""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from service.protocols.h2.frames import ConnectionFault, ErrorCode

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
