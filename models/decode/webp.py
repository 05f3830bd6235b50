"""WebP: lossy, lossless, and the first frame of an animation. WebP container specification."""

from PIL import WebPImagePlugin

from models.decode.errors import BrokenImage
from models.decode.header import ImageFormat, ImageHeader, Pixels, make_header
from models.decode.orientation import UPRIGHT, read_orientation
from models.decode.pillow import read_with

NAME = "WebP"
_MAX_CHUNKS = 100_000
_PIXEL_COST = 20.0  # measured: two RGBA canvases of libwebp, its frame, two copies in Pillow, the result


def _read_header(data: bytes) -> ImageHeader:
    kind, body = data[12:16], data[20:30]
    orientation = UPRIGHT
    if len(body) < 10:
        raise BrokenImage("WebP data ends inside its header")
    if kind == b"VP8X":
        size = 1 + int.from_bytes(body[7:10], "little"), 1 + int.from_bytes(body[4:7], "little")
        orientation = _find_orientation(data) if body[0] & 0x08 else UPRIGHT
    elif kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        size = 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    elif kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        size = int.from_bytes(body[8:10], "little") & 0x3FFF, int.from_bytes(body[6:8], "little") & 0x3FFF
    else:
        raise BrokenImage("WebP does not begin with an image")
    return make_header(NAME, size, orientation, _PIXEL_COST, len(data))


def _find_orientation(data: bytes) -> int:
    """Walk the RIFF chunks to EXIF, which stands behind the pixels."""
    position = 12
    for _ in range(_MAX_CHUNKS):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            return read_orientation(data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
        if position + 8 > len(data):
            break
    return UPRIGHT


def _read_pixels(data: bytes, header: ImageHeader) -> Pixels:
    return read_with(WebPImagePlugin.WebPImageFile, data, header)


def _matches(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


FORMAT = ImageFormat(NAME, _matches, _read_header, _read_pixels)
