"""TIFF and BigTIFF, the first image. The decoder gets a directory of our own making.

A directory may point 65,535 times at the same 20 MB, and Pillow and libtiff copy what tags point at. So
every entry is checked against the file, those that pixels do not depend on are left out, and the header is
pointed at the new directory, appended to the file. TIFF 6.0, sections 2 and 3; BigTIFF has 64-bit counts.
"""

import struct
from dataclasses import dataclass

import numpy as np
from PIL import TiffImagePlugin

from models.decode.errors import BrokenImage, UnsupportedFormat
from models.decode.header import ImageFormat, ImageHeader, Pixels, make_header
from models.decode.orientation import UPRIGHT
from models.decode.pillow import read_with

NAME = "TIFF"
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _STRIP_BYTES = 273, 274, 277, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
# What pixels depend on: sizes, layout, compression, colour; 512..521 is the old JPEG compression.
_KEPT = {
    *(254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
    *(332, 333, 336, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532),
}
# Those with one value each; with more, Pillow warns and libtiff takes the first.
_SINGLE = {254, 256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 332}
_TYPES_OF_BYTES = {1: (1, 2, 6, 7), 2: (3, 8), 4: (4, 9, 11, 13), 8: (5, 10, 12, 16, 17, 18)}
_TYPE_BYTES = {kind: size for size, kinds in _TYPES_OF_BYTES.items() for kind in kinds}
_SHORT = 3
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_MAX_ENTRIES = 512
_MAX_STRIPS = 100_000  # each becomes some hundred bytes of Python objects
_MAX_TILE_SIDE = 16_384
_WHITE_IS_ZERO = 0


@dataclass(frozen=True, slots=True)
class _Layout:
    """Byte order and the widths of a directory's fields: classic or BigTIFF."""

    order: str
    is_big: bool

    @property
    def count_bytes(self) -> int:
        return 8 if self.is_big else 2

    @property
    def entry_bytes(self) -> int:
        return 20 if self.is_big else 12

    @property
    def inline_bytes(self) -> int:
        return 8 if self.is_big else 4

    @property
    def offset_code(self) -> str:
        return self.order + ("Q" if self.is_big else "I")

    @property
    def count_code(self) -> str:
        return self.order + ("Q" if self.is_big else "H")

    @property
    def entry_code(self) -> str:
        return self.order + ("HHQ" if self.is_big else "HHI")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One checked entry: `raw` as it stands in the directory; its values are at `start` in the file."""

    tag: int
    kind: int
    count: int
    start: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class _Directory:
    layout: _Layout
    entries: dict[int, _Entry]
    data: bytes

    def first(self, tag: int, default: int) -> int:
        """The first value of an integer tag; `default` when it is absent."""
        entry = self.entries.get(tag)
        if entry is None:
            return default
        code = _INTEGERS.get(entry.kind)
        if code is None:
            raise BrokenImage(f"TIFF tag {tag} is not a whole number")
        value: int = struct.unpack_from(self.layout.order + code, self.data, entry.start)[0]
        return value

    def count(self, tag: int) -> int:
        entry = self.entries.get(tag)
        return entry.count if entry else 0


def _read_layout(data: bytes) -> _Layout:
    order = "<" if data[:2] == b"II" else ">"
    return _Layout(order, is_big=data[2:4] in (b"+\0", b"\0+"))


def _read_directory(data: bytes) -> _Directory:
    """Check every entry of the first directory against the file; raises BrokenImage."""
    layout = _read_layout(data)
    if len(data) < 16:
        raise BrokenImage("TIFF data ends inside its header")
    (at,) = struct.unpack_from(layout.offset_code, data, 8 if layout.is_big else 4)
    first_entry = at + layout.count_bytes
    if first_entry > len(data):
        raise BrokenImage("TIFF data ends before its directory")
    (count,) = struct.unpack_from(layout.count_code, data, at)
    if count > _MAX_ENTRIES or first_entry + count * layout.entry_bytes > len(data):
        raise BrokenImage("TIFF directory is damaged or truncated")
    starts = range(first_entry, first_entry + count * layout.entry_bytes, layout.entry_bytes)
    entries = (_read_entry(data, layout, start) for start in starts)
    kept: dict[int, _Entry] = {}
    for entry in entries:
        if entry is not None:
            kept.setdefault(entry.tag, entry)
    return _Directory(layout, kept, data)


def _read_entry(data: bytes, layout: _Layout, at: int) -> _Entry | None:
    """One entry, or None if pixels do not depend on it; raises BrokenImage if it points outside the file."""
    tag, kind, count = struct.unpack_from(layout.entry_code, data, at)
    is_orientation = tag == _ORIENTATION and (kind, count) == (_SHORT, 1)
    if tag not in _KEPT and not is_orientation:
        return None
    if tag in _SINGLE and count != 1:
        raise BrokenImage(f"TIFF tag {tag} has {count} values, it can have one")
    size = count * _TYPE_BYTES.get(kind, 0)
    start = at + layout.entry_bytes - layout.inline_bytes
    if size > layout.inline_bytes:
        (start,) = struct.unpack_from(layout.offset_code, data, start)
    if size == 0 or start + size > len(data):
        raise BrokenImage(f"TIFF tag {tag} points outside the file")
    return _Entry(tag, kind, count, start, data[at : at + layout.entry_bytes])


def _read_header(data: bytes) -> ImageHeader:
    directory = _read_directory(data)
    _check_storage(directory)
    size = directory.first(_HEIGHT, 0), directory.first(_WIDTH, 0)
    orientation = directory.first(_ORIENTATION, UPRIGHT)
    bits, samples = directory.first(_BITS, 1), min(directory.first(_SAMPLES, 1), 8)
    # libtiff's strip or tile, Pillow's image, conversions; deep samples are held at full depth meanwhile.
    cost = 14.0 + 2 * samples * max(1.0, bits / 8)
    return make_header(NAME, size, orientation if 1 <= orientation <= 8 else UPRIGHT, cost, 2 * len(data))


def _check_storage(directory: _Directory) -> None:
    """Refuse strips and tiles out of proportion to any image; raises BrokenImage, UnsupportedFormat."""
    strips = max(directory.count(_STRIP_OFFSETS), directory.count(_TILE_OFFSETS))
    if strips > _MAX_STRIPS:
        raise UnsupportedFormat(f"TIFF of {strips} strips is not read here, the limit is {_MAX_STRIPS}")
    if max(directory.first(_TILE_WIDTH, 1), directory.first(_TILE_HEIGHT, 1)) > _MAX_TILE_SIDE:
        raise BrokenImage(f"TIFF has tiles of more than {_MAX_TILE_SIDE} pixels a side")


def _clean(directory: _Directory) -> bytes:
    """The file with a directory of the kept entries appended, and its header pointing there."""
    layout, data = directory.layout, directory.data
    padding = b"\0" * (-len(data) % 8)
    entries = [entry.raw for tag, entry in sorted(directory.entries.items()) if tag != _ORIENTATION]
    header_end = 16 if layout.is_big else 8
    directory_at = struct.pack(layout.offset_code, len(data) + len(padding))
    header = data[: header_end - layout.inline_bytes] + directory_at
    count = struct.pack(layout.count_code, len(entries))
    no_next = struct.pack(layout.offset_code, 0)
    return b"".join([header, data[header_end:], padding, count, *entries, no_next])


def _read_pixels(data: bytes, header: ImageHeader) -> Pixels:
    directory = _read_directory(data)
    pixels = read_with(TiffImagePlugin.TiffImageFile, _clean(directory), header)
    is_deep_grey = directory.first(_SAMPLES, 1) == 1 and directory.first(_BITS, 1) > 8
    if is_deep_grey and directory.first(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        return np.subtract(255, pixels, dtype=np.uint8)  # Pillow inverts up to 8 bits only
    return pixels


def _matches(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


FORMAT = ImageFormat(NAME, _matches, _read_header, _read_pixels)
