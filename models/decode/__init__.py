"""Bytes of a client -> pixels: the first thing that happens to an image.

    decode_image ── sniff ── read_header ── limits ── read_pixels ── turn upright
                     │           │                        │
                  FORMATS   one module a format,   simplejpeg, or one named Pillow plugin
                            nothing decoded yet    on a file cleaned of all but pixels

Every failure is one of errors.ImageError; no message holds a library's words.
"""

from dataclasses import dataclass

from models.decode import avif, bmp, gif, jpeg, png, tiff, webp
from models.decode.errors import BrokenImage, ImageError, TooManyBytes, TooManyPixels, UnsupportedFormat
from models.decode.header import ImageFormat, ImageHeader, Pixels
from models.decode.orientation import turn_back, turn_upright

__all__ = [
    "FORMATS",
    "BrokenImage",
    "DecodeLimits",
    "DecodedImage",
    "ImageError",
    "ImageHeader",
    "TooManyBytes",
    "TooManyPixels",
    "UnsupportedFormat",
    "decode_cost_bytes",
    "decode_image",
    "peek_size",
    "read_header",
    "turn_back",
]

FORMATS: tuple[ImageFormat, ...] = (
    jpeg.FORMAT,
    png.FORMAT,
    webp.FORMAT,
    gif.FORMAT,
    bmp.FORMAT,
    tiff.FORMAT,
    avif.FORMAT,
)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Checked before any pixel is decoded: the file's bytes, and the pixels its header announces."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """`pixels`: uint8 [H, W, 3], RGB, upright, to be read only. `orientation`: the EXIF one undone, 1..8."""

    pixels: Pixels
    format: str
    orientation: int


def decode_image(data: bytes, limits: DecodeLimits, header: ImageHeader | None = None) -> DecodedImage:
    """Decode one image; animations give their first frame, alpha is put over white. Raises ImageError.

    `header`: what read_header gave for this data, if it was read before.
    """
    _check_bytes(data, limits)
    image_format = _find_format(data)
    header = header or image_format.read_header(data)
    _check_pixels(header, limits)
    pixels = turn_upright(image_format.read_pixels(data, header), header.orientation)
    return DecodedImage(pixels, header.format, header.orientation)


def read_header(data: bytes) -> ImageHeader:
    """Size, orientation and cost from the header, no pixel decoded; raises UnsupportedFormat, BrokenImage."""
    return _find_format(data).read_header(data)


def peek_size(data: bytes) -> tuple[str, int, int]:
    """(format, height, width) of the upright image, no pixel decoded; raises as read_header does."""
    header = read_header(data)
    return header.format, *header.oriented_size


def decode_cost_bytes(data: bytes) -> int:
    """The most memory that decoding and resizing will hold at once, estimated, `data` itself excluded.

    For a budget over all decodes in flight. Raises UnsupportedFormat, BrokenImage.
    """
    return read_header(data).cost_bytes


def _check_bytes(data: bytes, limits: DecodeLimits) -> None:
    if len(data) > limits.max_bytes:
        raise TooManyBytes(
            f"image has {_millions(len(data))} MB, the limit is {_millions(limits.max_bytes)} MB "
            "(SERVE_MAX_IMAGE_BYTES)"
        )


def _check_pixels(header: ImageHeader, limits: DecodeLimits) -> None:
    if header.pixels > limits.max_pixels:
        raise TooManyPixels(
            f"image has {_millions(header.pixels)} MP, the limit is {_millions(limits.max_pixels)} MP "
            "(SERVE_MAX_PIXELS)"
        )


def _find_format(data: bytes) -> ImageFormat:
    for image_format in FORMATS:
        if image_format.matches(data):
            return image_format
    names = [image_format.name for image_format in FORMATS]
    accepted = f"{', '.join(names[:-1])} or {names[-1]}"
    found = "the image has 0 bytes" if not data else "the image's first bytes are of no format read here"
    raise UnsupportedFormat(f"{found}; send {accepted}")


def _millions(count: int) -> str:
    """1234567 -> "1.2"; whole numbers without a point."""
    return f"{count / 1e6:.1f}".removesuffix(".0")
