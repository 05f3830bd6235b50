"""PNG, and the still image of an animated one. The decoder sees IHDR, PLTE, tRNS, IDAT and IEND alone.

So compressed text and colour profiles are never inflated; eXIf is read for its orientation without touching
pixels, wherever it stands. PNG third edition, section 11.
"""

from collections.abc import Iterator

from PIL import PngImagePlugin

from models.decode.errors import BrokenImage
from models.decode.header import ImageFormat, ImageHeader, Pixels, make_header
from models.decode.orientation import UPRIGHT, read_orientation
from models.decode.pillow import read_with

NAME = "PNG"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_MAX_CHUNKS = 100_000  # 20 MB in chunks of 200 bytes; encoders write 8 kB and more
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6  # colour types


def _walk(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of every chunk up to IEND, from its length field to its checksum's end."""
    position = len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        end = position + 12 + int.from_bytes(data[position : position + 4])
        if position + 12 > len(data) or end > len(data):
            raise BrokenImage("PNG data ends before its last chunk")
        kind = data[position + 4 : position + 8]
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise BrokenImage(f"PNG has more than {_MAX_CHUNKS} chunks")


def _read_header(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise BrokenImage("PNG does not begin with its header")
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    depth, colour = data[24], data[25]
    orientation, has_transparency = UPRIGHT, colour in (_GREY_ALPHA, _RGB_ALPHA)
    for kind, start, end in _walk(data):
        if kind == b"eXIf" and orientation == UPRIGHT:
            orientation = read_orientation(data[start + 8 : end - 4])
        has_transparency = has_transparency or kind == b"tRNS"
    cost = _pixel_cost(depth, colour, has_transparency)
    return make_header(NAME, (height, width), orientation, cost, len(data))


def _pixel_cost(depth: int, colour: int, has_transparency: bool) -> float:
    """Bytes held for a pixel at the peak, measured: the decoded image and what becomes of it."""
    if colour == _GREY and depth == 16:
        return 12.0
    if has_transparency:
        return 19.0
    return 10.5 if colour == _RGB else 11.5


def _read_pixels(data: bytes, header: ImageHeader) -> Pixels:
    view = memoryview(data)
    kept = [view[start:end] for kind, start, end in _walk(data) if kind in _KEPT]
    return read_with(PngImagePlugin.PngImageFile, b"".join([_SIGNATURE, *kept]), header)


FORMAT = ImageFormat(NAME, lambda data: data[:8] == _SIGNATURE, _read_header, _read_pixels)
