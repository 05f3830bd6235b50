"""The directory of a zip file, read entry by entry; every number in it is a claim to be checked.

Format: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from service.errors import BadRequest
from service.jobs.reading.members import refuse_member

END = struct.Struct("<4s4H2LH")  # 4.3.16
END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
LOCATOR64 = struct.Struct("<4sLQL")  # 4.3.15
ENTRY = struct.Struct("<4s6H3L5H2L")  # 4.3.12
LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
END_MARK, END64_MARK, LOCATOR64_MARK = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
ENTRY_MARK, LOCAL_MARK = b"PK\x01\x02", b"PK\x03\x04"
LONGEST_COMMENT = 0xFFFF
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 record"
ZIP64_FIELD = 1
IS_UTF8 = 1 << 11
HAS_DESCRIPTOR = 1 << 3


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the entries begin and end, and how many they are said to be."""

    start: int
    end: int
    count: int


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: sizes in bytes, `offset` of its local header, `mode` as of stat, 0 where not from Unix."""

    name: str
    flags: int
    method: int
    crc: int
    packed_bytes: int
    unpacked_bytes: int
    offset: int
    mode: int


def find_directory(file: BinaryIO) -> Directory:
    """Find and check the end record; raises BadRequest."""
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - END.size - LONGEST_COMMENT)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(END_MARK)
    while at >= 0 and len(tail) >= at + END.size:
        fields: tuple[int, ...] = END.unpack_from(tail, at)
        if at + END.size + fields[7] == len(tail):
            return _read_end(file, tail_at + at, fields)
        at = tail.rfind(END_MARK, 0, at)
    raise BadRequest("the zip archive is damaged: it has no directory")


def read_members(file: BinaryIO, directory: Directory) -> Iterator[Member]:
    """Every entry in the directory's order; `file` is used for nothing else meanwhile."""
    file.seek(directory.start)
    for number in range(directory.count):
        if file.tell() + ENTRY.size > directory.end:
            raise BadRequest(f"the zip archive says {directory.count} members, its directory has {number}")
        fields = ENTRY.unpack(file.read(ENTRY.size))
        if fields[0] != ENTRY_MARK:
            raise BadRequest(f"the zip archive is damaged at entry {number} of its directory")
        name, extra, _ = (file.read(length) for length in fields[10:13])
        yield _make_member(fields, name, extra)
    if file.tell() != directory.end:
        raise BadRequest(f"the zip archive says {directory.count} members, its directory has others")


def find_data(file: BinaryIO, member: Member) -> int:
    """The offset of a member's data, its local header agreeing with the directory; raises BadRequest."""
    file.seek(member.offset)
    head = file.read(LOCAL.size)
    if len(head) < LOCAL.size or not head.startswith(LOCAL_MARK):
        raise refuse_member(member.name, "is not where the directory says")
    fields: tuple[int, ...] = LOCAL.unpack(head)
    name, extra = file.read(fields[9]), file.read(fields[10])
    if _decode_name(name, fields[2]) != member.name or fields[3] != member.method:
        raise refuse_member(member.name, "has another name or method in its own header")
    if not fields[2] & HAS_DESCRIPTOR:
        unpacked, packed = _read_zip64(member.name, extra, fields[8], fields[7])
        if (fields[6], packed, unpacked) != (member.crc, member.packed_bytes, member.unpacked_bytes):
            raise refuse_member(member.name, "has another size or checksum in its own header")
    return member.offset + LOCAL.size + fields[9] + fields[10]


def _read_end(file: BinaryIO, at: int, fields: tuple[int, ...]) -> Directory:
    _, disk, first_disk, here, count, size, start, _ = fields
    end = at
    found = _read_end64(file, at) if FULL_16 in (here, count) or FULL_32 in (size, start) else None
    if found is not None:
        end, disk, first_disk, here, *long = found
        claims = zip((count, size, start), long, (FULL_16, FULL_32, FULL_32), strict=True)
        if any(claim not in (full, true) for claim, true, full in claims):
            raise BadRequest("the zip archive is damaged: its two end records disagree")
        count, size, start = long
    if disk or first_disk or here != count:
        raise BadRequest("the zip archive is split over several files; send one whole file")
    if start + size != end:
        raise BadRequest("the zip archive is damaged: its directory is not where its end record says")
    return Directory(start, end, count)


def _read_end64(file: BinaryIO, at: int) -> tuple[int, ...] | None:
    """Offset of the zip64 end record, then this disk, first disk, entries here, entries, size, start."""
    if at < LOCATOR64.size + END64.size:
        return None
    file.seek(at - LOCATOR64.size)
    mark, _, record_at, _ = LOCATOR64.unpack(file.read(LOCATOR64.size))
    if mark != LOCATOR64_MARK:
        return None
    if record_at > at - LOCATOR64.size - END64.size:
        raise BadRequest("the zip archive is damaged: its zip64 end record is not where it says")
    file.seek(record_at)
    mark, _, _, _, *rest = END64.unpack(file.read(END64.size))
    if mark != END64_MARK:
        raise BadRequest("the zip archive is damaged: its zip64 end record is not where it says")
    return record_at, *rest


def _make_member(fields: tuple[int, ...], raw_name: bytes, extra: bytes) -> Member:
    _, made_by, _, flags, method, _, _, crc, packed, unpacked, *_, attributes, offset = fields
    name = _decode_name(raw_name, flags)
    unpacked, packed, offset = _read_zip64(name, extra, unpacked, packed, offset)
    is_unix = made_by >> 8 in (3, 19)  # Unix, macOS
    return Member(name, flags, method, crc, packed, unpacked, offset, attributes >> 16 if is_unix else 0)


def _read_zip64(name: str, extra: bytes, *numbers: int) -> list[int]:
    """`numbers` with those that say "see zip64" replaced, in the order of the zip64 extra field (4.5.3)."""
    if FULL_32 not in numbers:
        return list(numbers)
    field = _find_field(extra, ZIP64_FIELD)
    found = []
    for number in numbers:
        if number == FULL_32:
            if len(field) < 8:
                raise refuse_member(name, "promises zip64 sizes and has none")
            number, field = int.from_bytes(field[:8], "little"), field[8:]  # noqa: PLW2901
        found.append(number)
    return found


def _find_field(extra: bytes, wanted: int) -> bytes:
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == wanted:
            return extra[4 : 4 + length]
        extra = extra[4 + length :]
    return b""


def _decode_name(raw: bytes, flags: int) -> str:
    if flags & IS_UTF8:
        return raw.decode("utf-8", "replace")
    try:
        return raw.decode("utf-8")  # what most archivers write, flag or not
    except UnicodeDecodeError:
        return raw.decode("cp437")
