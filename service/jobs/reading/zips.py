"""zip: spooled whole, checked member by member, and only then unpacked.

Our own reader, as the standard library's keeps the whole directory as objects and believes its sizes.
Stored and deflated members, zip64 where the archive needs it.
"""

import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.errors import BrokenImage
from service.jobs.reading.directory import Directory, Member, find_data, find_directory, read_members
from service.jobs.reading.members import (
    CHUNK_BYTES,
    HEAD_BYTES,
    MemberSink,
    check_head,
    check_name,
    check_ratio,
    is_litter,
    refuse_member,
)
from service.jobs.storage import storage_errors

ARCHIVE = "archive"  # its name in the job's folder, while it is read
STORED, DEFLATED = 0, 8
ENCRYPTED = 1 | 1 << 6 | 1 << 13
RAW_DEFLATE = -zlib.MAX_WBITS


class _Damaged(Exception):
    """The packed data of one member cannot be unpacked."""


def spool_zip(body: BinaryIO, spool: MemberSink) -> None:
    """Every regular member becomes an item, in the directory's order; raises BadRequest or TooLarge.

    A member whose data is damaged is an item with an error.
    """
    path = spool.folder / ARCHIVE
    try:
        _copy(body, path, spool)
        with path.open("rb") as directory_file, path.open("rb") as file:
            directory = find_directory(directory_file)
            spool.check_count(directory.count)
            _check(directory_file, file, directory, spool)
            for member in read_members(directory_file, directory):
                if _is_wanted(member):
                    _unpack(file, member, spool)
    finally:
        path.unlink(missing_ok=True)


def _copy(body: BinaryIO, path: Path, spool: MemberSink) -> None:
    size = 0
    with storage_errors(), path.open("wb") as file:
        while chunk := body.read(CHUNK_BYTES):
            size += len(chunk)
            spool.check_size(size)
            file.write(chunk)


def _is_wanted(member: Member) -> bool:
    return not member.name.endswith("/") and not is_litter(member.name)


def _check(directory_file: BinaryIO, file: BinaryIO, directory: Directory, spool: MemberSink) -> None:
    """Every member, before anything is unpacked."""
    extents = np.zeros((directory.count, 2), np.int64)
    total_bytes = 0
    for number, member in enumerate(read_members(directory_file, directory)):
        _check_kind(member)
        if member.offset + member.packed_bytes > directory.start:
            raise refuse_member(member.name, "overlaps the directory")
        start = find_data(file, member)
        extents[number] = member.offset, start + member.packed_bytes
        check_ratio(member.name, member.packed_bytes, member.unpacked_bytes)
        total_bytes += member.unpacked_bytes
        spool.check_size(total_bytes)
    overlapping = _find_overlap(extents, directory.start)
    if overlapping is not None:
        for number, member in enumerate(read_members(directory_file, directory)):
            if number == overlapping:
                raise refuse_member(member.name, "overlaps another member")


def _check_kind(member: Member) -> None:
    check_name(member.name)
    kind = stat.S_IFMT(member.mode)
    if member.flags & ENCRYPTED:
        raise refuse_member(member.name, "is encrypted")
    if kind == stat.S_IFLNK:
        raise refuse_member(member.name, "is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refuse_member(member.name, "is not a regular file")
    if member.method not in (STORED, DEFLATED):
        raise refuse_member(member.name, f"is packed by method {member.method}; use stored or deflated")
    if member.method == STORED and member.packed_bytes != member.unpacked_bytes:
        raise refuse_member(member.name, "is stored and says two sizes")


def _find_overlap(extents: NDArray[np.int64], end: int) -> int | None:
    """extents: int64 [N, 2], first and past the last byte; the number of one that reaches into another."""
    if not len(extents):
        return None
    order = np.argsort(extents[:, 0], kind="stable")
    ordered = extents[order]
    limits = np.append(ordered[1:, 0], end)
    wrong = np.flatnonzero(ordered[:, 1] > limits)
    return int(order[wrong[0]]) if len(wrong) else None


def _unpack(file: BinaryIO, member: Member, spool: MemberSink) -> None:
    file.seek(find_data(file, member))
    head = b""
    spool.begin(member.name)
    try:
        crc = size = 0
        for data in _read_data(file, member):
            if len(head) < HEAD_BYTES:
                head += data[:HEAD_BYTES]
            size += len(data)
            if size > member.unpacked_bytes:
                raise refuse_member(
                    member.name, f"unpacks to more than the {member.unpacked_bytes} bytes it says"
                )
            crc = zlib.crc32(data, crc)
            spool.write(data)
        if size < member.unpacked_bytes or crc != member.crc:
            raise _Damaged
    except (_Damaged, zlib.error):
        spool.fail(BrokenImage("the archive's data of this image is damaged"))
    check_head(member.name, head)
    spool.end()


def _read_data(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Unpacked pieces of at most CHUNK_BYTES; never reads beyond the member's packed bytes."""
    left = member.packed_bytes
    inflater = zlib.decompressobj(RAW_DEFLATE) if member.method == DEFLATED else None
    while left:
        packed = file.read(min(left, CHUNK_BYTES))
        left -= len(packed)
        if inflater is None:
            yield packed
            continue
        while packed and not inflater.eof:
            yield inflater.decompress(packed, CHUNK_BYTES)
            packed = inflater.unconsumed_tail
    while inflater is not None and not inflater.eof:  # what the last piece had no room for
        rest = inflater.decompress(b"", CHUNK_BYTES)
        if not rest:
            raise _Damaged
        yield rest
