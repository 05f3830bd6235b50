"""GIF: the first frame. Comments and application blocks before it are dropped, further frames never read.

GIF89a specification, sections 17 to 23.
"""

from dataclasses import dataclass

from PIL import GifImagePlugin

from models.decode.errors import BrokenImage
from models.decode.header import ImageFormat, ImageHeader, Pixels, make_header
from models.decode.orientation import UPRIGHT
from models.decode.pillow import read_with

NAME = "GIF"
_EXTENSION, _IMAGE = 0x21, 0x2C
_GRAPHIC_CONTROL = 0xF9
_MAX_BLOCKS = 100_000  # before the first frame; 20 MB of comments are 80,000 blocks of 255 bytes
_PIXEL_COST = 18.0  # measured: palette indices, RGBA, the white canvas, RGB


@dataclass(frozen=True, slots=True)
class _FirstFrame:
    """Where the parts that matter lie: screen and palette end, graphic control or None, image descriptor."""

    screen_end: int
    control: tuple[int, int] | None
    image_at: int


def _find_first_frame(data: bytes) -> _FirstFrame:
    """Walk the blocks up to the first image descriptor; raises BrokenImage."""
    if len(data) < 13:
        raise BrokenImage("GIF data ends inside its header")
    screen_end = 13 + _palette_bytes(data[10])
    position, control = screen_end, None
    for _ in range(_MAX_BLOCKS):
        introducer = data[position] if position + 10 <= len(data) else None
        if introducer == _IMAGE:
            return _FirstFrame(screen_end, control, position)
        if introducer != _EXTENSION:
            raise BrokenImage("GIF has no image")
        end = _skip_blocks(data, position + 2)
        if data[position + 1] == _GRAPHIC_CONTROL:
            control = (position, end)
        position = end
    raise BrokenImage(f"GIF has more than {_MAX_BLOCKS} blocks before its first frame")


def _palette_bytes(flags: int) -> int:
    """Size of a colour table from the packed flags: 2^(n+1) colours of 3 bytes, or none."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(data: bytes, position: int) -> int:
    """The position behind a chain of sub-blocks, each a length and that many bytes, the last one empty."""
    for _ in range(_MAX_BLOCKS):
        if position >= len(data):
            raise BrokenImage("GIF data ends before its first frame")
        length = data[position]
        position += 1 + length
        if length == 0:
            return position
    raise BrokenImage(f"GIF has an extension of more than {_MAX_BLOCKS} blocks")


def _read_header(data: bytes) -> ImageHeader:
    frame = _find_first_frame(data)
    descriptor = data[frame.image_at + 1 : frame.image_at + 9]
    left, top, width, height = (int.from_bytes(descriptor[i : i + 2], "little") for i in (0, 2, 4, 6))
    # A frame may lie outside the screen it belongs to; like browsers and Pillow, let the screen grow.
    screen_width = max(int.from_bytes(data[6:8], "little"), left + width)
    screen_height = max(int.from_bytes(data[8:10], "little"), top + height)
    return make_header(NAME, (screen_height, screen_width), UPRIGHT, _PIXEL_COST, len(data))


def _read_pixels(data: bytes, header: ImageHeader) -> Pixels:
    frame = _find_first_frame(data)
    view = memoryview(data)
    control = view[slice(*frame.control)] if frame.control else b""
    clean = b"".join([view[: frame.screen_end], control, view[frame.image_at :]])
    return read_with(GifImagePlugin.GifImageFile, clean, header)


FORMAT = ImageFormat(NAME, lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _read_header, _read_pixels)
