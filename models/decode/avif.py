"""AVIF, the first image of a sequence included; where this Pillow was built with libavif.

libavif parses the boxes here too, sizes first: a parser of our own would be larger than this package.
"""

import io
import re

from PIL import AvifImagePlugin, Image

from models.decode.errors import BrokenImage, UnsupportedFormat
from models.decode.header import ImageFormat, ImageHeader, Pixels, make_header
from models.decode.orientation import UPRIGHT, read_orientation
from models.decode.pillow import DECODER_ERRORS, read_with

NAME = "AVIF"
_BRANDS = (b"avif", b"avis")
_PIXEL_COST = 20.0  # measured: planes of the decoder, RGBA, two copies in Pillow, the result

# An item entry ("infe" box, version 2 or 3) of type Exif: renamed, so that nobody parses what it points at.
_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)


def _clean(data: bytes) -> bytes:
    return _EXIF_ITEM.sub(rb"\1skip", data)


def _open(file: io.BytesIO) -> AvifImagePlugin.AvifImageFile:
    # One thread: the worker's others decode other images. A module global is Pillow's only way to say so.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return AvifImagePlugin.AvifImageFile(file)


def _read_header(data: bytes) -> ImageHeader:
    if not AvifImagePlugin.SUPPORTED:
        raise UnsupportedFormat("AVIF is not read by this installation; save it as JPEG or PNG")
    try:
        image = _open(io.BytesIO(_clean(data)))
    except DECODER_ERRORS as err:
        raise BrokenImage("AVIF data is damaged or truncated") from err
    width, height = image.size
    return make_header(NAME, (height, width), _stored_orientation(image), _PIXEL_COST, len(data))


def _stored_orientation(image: Image.Image) -> int:
    """The container's own rotation and mirror (irot, imir), which Pillow reports as EXIF."""
    exif = image.info.get("exif")
    return read_orientation(exif) if isinstance(exif, bytes) else UPRIGHT


def _read_pixels(data: bytes, header: ImageHeader) -> Pixels:
    return read_with(_open, _clean(data), header)


def _matches(data: bytes) -> bool:
    """An ISO media file whose major or compatible brands name AVIF."""
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(int.from_bytes(data[:4]), 256)]
    return any(brands[at : at + 4] in _BRANDS for at in range(0, len(brands), 4))


FORMAT = ImageFormat(NAME, _matches, _read_header, _read_pixels)
