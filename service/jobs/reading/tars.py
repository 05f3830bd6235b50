"""tar as a stream: POSIX ustar and pax, and GNU's long names; regular files only.

Our own reader, as the standard library's reads extended headers of any size into memory and follows sparse
maps. Format: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from service.errors import BadRequest, TooLarge
from service.jobs.reading.gzips import GrowsTooMuch, GzipStream
from service.jobs.reading.members import (
    CHUNK_BYTES,
    HEAD_BYTES,
    MAX_RATIO,
    MemberSink,
    check_head,
    check_name,
    clip_name,
    is_litter,
    refuse_member,
)

BLOCK = 512
MAX_EXTENDED_BYTES = 1 << 20
MAX_DIGITS = 20  # of a number in a pax header: 2^64 has as many
KEPT, SPARSE = (b"path", b"size"), "GNU.sparse"
REGULAR, FOLDER, PAX, PAX_GLOBAL = (b"0", b"\0", b"7"), b"5", b"x", b"g"
GNU_NAME, GNU_LINK = b"L", b"K"
REFUSED = {
    b"1": "is a hard link",
    b"2": "is a symbolic link",
    b"3": "is a device",
    b"4": "is a device",
    b"6": "is a pipe",
    b"S": "is a sparse file",
}


@dataclass(slots=True)
class _Header:
    name: str
    size_bytes: int
    kind: bytes


def is_tar(head: bytes) -> bool:
    """`head`: the first 512 bytes of a body; whether they are a tar header, by its checksum."""
    return len(head) >= BLOCK and any(head[:BLOCK]) and _checksum(head[:BLOCK]) == _read_number(head[148:156])


def spool_tar_gz(body: BinaryIO, spool: MemberSink) -> None:
    """As spool_tar, of a gzip body that may grow MAX_RATIO times; raises TooLarge beyond."""
    spool_tar(io.BufferedReader(GzipStream(body), CHUNK_BYTES), spool)


def spool_tar(body: BinaryIO, spool: MemberSink) -> None:
    """Every regular member becomes an item, in order; raises BadRequest naming a member that may not be."""
    reader = _TarReader(body, spool)
    try:
        reader.read_all()
        while body.read(CHUNK_BYTES):  # padding after the end marker
            pass
    except GrowsTooMuch as err:
        where = f"member {clip_name(reader.current)!r}" if reader.current else "the archive"
        raise TooLarge(f"{where} unpacks to more than {MAX_RATIO} times its size") from err


class _TarReader:
    """`current` names the member being read."""

    def __init__(self, body: BinaryIO, spool: MemberSink) -> None:
        self.current = ""
        self._body, self._spool = body, spool
        self._extended: dict[str, str] = {}  # of KEPT alone, and sparse files' keys as one

    def read_all(self) -> None:
        while (header := self._read_header()) is not None:
            if header.kind in (PAX, PAX_GLOBAL):
                self._read_pax(header)
            elif header.kind in (GNU_NAME, GNU_LINK):
                self._read_gnu(header)
            else:
                self._read_member(header)
                self._extended.clear()

    def _read_header(self) -> _Header | None:
        block = self._body.read(BLOCK)
        if not any(block):
            return None  # the end marker; some writers leave it out
        if not is_tar(block):
            raise BadRequest(f"the tar archive is damaged after member {clip_name(self.current)!r}")
        name, prefix = _read_text(block[:100]), _read_text(block[345:500])
        is_posix = block[257:263] == b"ustar\0"
        full = f"{prefix}/{name}" if is_posix and prefix else name
        return _Header(full, _read_number(block[124:136]), block[156:157])

    def _read_member(self, header: _Header) -> None:
        name = self.current = self._extended.get("path", header.name)
        size = self._extended.get("size", str(header.size_bytes))
        if SPARSE in self._extended:
            raise refuse_member(name, REFUSED[b"S"])
        if not size.isascii() or not size.isdigit() or len(size) > MAX_DIGITS:
            raise refuse_member(name, "has no readable size")
        check_name(name)
        if header.kind == FOLDER or (header.kind in REGULAR and name.endswith("/")):
            self._skip(int(size))
        elif header.kind in REGULAR:
            self._spool_data(name, int(size))
        else:
            raise refuse_member(name, REFUSED.get(header.kind, f"is of unknown kind {header.kind!r}"))

    def _spool_data(self, name: str, size_bytes: int) -> None:
        if is_litter(name):
            self._skip(size_bytes)
            return
        head = self._take(min(size_bytes, HEAD_BYTES))
        check_head(name, head)
        self._spool.begin(name)
        self._spool.write(head)
        left = size_bytes - len(head)
        while left:
            chunk = self._take(min(left, CHUNK_BYTES))
            self._spool.write(chunk)
            left -= len(chunk)
        self._spool.end()
        self._take(-size_bytes % BLOCK)

    def _read_pax(self, header: _Header) -> None:
        data = self._read_extension(header)
        if header.kind == PAX_GLOBAL:
            return  # comments and the like; a global path or size would be nonsense
        for key, value in _iterate_pax(data):
            if key in KEPT:
                self._extended[key.decode()] = value.decode("utf-8", "replace")
            elif key.startswith(SPARSE.encode()):
                self._extended[SPARSE] = ""

    def _read_gnu(self, header: _Header) -> None:
        value = self._read_extension(header).rstrip(b"\0").decode("utf-8", "replace")
        if header.kind == GNU_NAME:
            self._extended["path"] = value

    def _read_extension(self, header: _Header) -> bytes:
        if not 0 <= header.size_bytes <= MAX_EXTENDED_BYTES:
            raise BadRequest(f"the tar archive has an extended header of over {MAX_EXTENDED_BYTES} bytes")
        data = self._take(header.size_bytes)
        self._take(-header.size_bytes % BLOCK)
        return data

    def _skip(self, size_bytes: int) -> None:
        left = size_bytes + -size_bytes % BLOCK
        while left:
            left -= len(self._take(min(left, CHUNK_BYTES)))

    def _take(self, count: int) -> bytes:
        data = self._body.read(count) if count else b""
        if len(data) < count:
            raise BadRequest(f"the tar archive ends within member {clip_name(self.current)!r}")
        return data


def _iterate_pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every `LENGTH KEY=VALUE` line; the rest is never copied: there may be a quarter of a million."""
    start = 0
    while start < len(data):
        space = data.find(b" ", start, start + MAX_DIGITS)
        length = data[start:space] if space > start else b""
        if not length.isdigit() or not 0 < int(length) <= len(data) - start:
            raise BadRequest("the tar archive has a damaged pax header")
        key, _, value = data[space + 1 : start + int(length) - 1].partition(b"=")
        yield key, value
        start += int(length)


def _checksum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _read_number(field: bytes) -> int:
    """Octal text, or GNU's big-endian binary with the first bit set; -1 for neither."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        return -1


def _read_text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")
