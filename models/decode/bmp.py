"""BMP: Windows and OS/2 headers, raw, bit fields and run-length coded."""

from PIL import BmpImagePlugin

from models.decode.errors import BrokenImage, UnsupportedFormat
from models.decode.header import ImageFormat, ImageHeader, Pixels, make_header
from models.decode.orientation import UPRIGHT
from models.decode.pillow import read_with

NAME = "BMP"
_CORE_HEADER = 12  # OS/2 1.x: 16-bit sizes
_RUN_LENGTH = (1, 2)
_PIXEL_COST = 12.0  # measured

# Pillow expands runs in Python, a few million steps a second with the interpreter's lock held.
MAX_RUN_LENGTH_PIXELS = 4_000_000
MAX_RUN_LENGTH_BYTES = 2_000_000


def _read_header(data: bytes) -> ImageHeader:
    if len(data) < 26:
        raise BrokenImage("BMP data ends inside its header")
    if int.from_bytes(data[14:18], "little") == _CORE_HEADER:
        size = int.from_bytes(data[20:22], "little"), int.from_bytes(data[18:20], "little")
        return make_header(NAME, size, UPRIGHT, _PIXEL_COST)
    width = int.from_bytes(data[18:22], "little")
    # A negative height means rows from the top; so does Pillow read it, by its last byte.
    height = abs(int.from_bytes(data[22:26], "little", signed=data[25] == 0xFF))
    if int.from_bytes(data[30:34], "little") in _RUN_LENGTH:
        _check_run_length(height * width, len(data))
    return make_header(NAME, (height, width), UPRIGHT, _PIXEL_COST)


def _check_run_length(pixels: int, size_bytes: int) -> None:
    if pixels > MAX_RUN_LENGTH_PIXELS or size_bytes > MAX_RUN_LENGTH_BYTES:
        raise UnsupportedFormat(
            f"run-length coded BMP is read up to {MAX_RUN_LENGTH_PIXELS // 10**6} MP "
            f"and {MAX_RUN_LENGTH_BYTES // 10**6} MB; save it uncompressed or as PNG"
        )


def _read_pixels(data: bytes, header: ImageHeader) -> Pixels:
    return read_with(BmpImagePlugin.BmpImageFile, data, header)


FORMAT = ImageFormat(NAME, lambda data: data[:2] == b"BM", _read_header, _read_pixels)
