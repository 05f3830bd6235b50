"""The one place where a Pillow decoder runs: a class named by us, a clean file, every exception translated.

Image.open is not used: it tries plugin after plugin (EPS would reach Ghostscript, MPO replaces JPEG) and
warns above a limit that is not ours. A plugin's class is opened directly, once, and its object is dropped
with whatever it raised: after an error its pixels load as garbage.
"""

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image, ImageFile

from models.decode.colour import to_rgb
from models.decode.errors import BrokenImage, TooManyPixels
from models.decode.header import ImageHeader, Pixels

# What Pillow's plugins were seen to raise on damaged files. MemoryError is apart: it is no damage.
DECODER_ERRORS = (
    OSError,  # truncated, bad checksum, and most of libtiff, libwebp and libavif
    SyntaxError,  # not this format after all
    ValueError,
    TypeError,
    LookupError,  # IndexError, KeyError
    AttributeError,
    ArithmeticError,  # ZeroDivisionError, OverflowError
    AssertionError,
    RuntimeError,  # NotImplementedError too
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

Plugin = Callable[[io.BytesIO], ImageFile.ImageFile]


def read_with(plugin: Plugin, clean: bytes, header: ImageHeader) -> Pixels:
    """Decode `clean` with one Pillow plugin -> uint8 RGB [H, W, 3]; raises BrokenImage, TooManyPixels."""
    try:
        image = plugin(io.BytesIO(clean))
        found = image.size
        if found == (header.width, header.height):
            image.load()
            return to_rgb(image)
    except DECODER_ERRORS as err:
        raise BrokenImage(f"{header.format} data is damaged or truncated") from err
    except MemoryError as err:
        raise TooManyPixels(
            f"image of {header.width} x {header.height} pixels needs more memory than there is"
        ) from err
    # Ours and the decoder's reading of the header differ: the limits were checked on another size.
    raise BrokenImage(f"{header.format} header contradicts itself about the image's size")
