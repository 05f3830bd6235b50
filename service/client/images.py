"""What a caller may call an image, turned into the bytes that are sent."""

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# A path, encoded bytes, a Pillow image, or pixels: uint8 [H, W] or [H, W, 1] grey, [H, W, 3] RGB, [H, W, 4]
# RGBA.
ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]


# Pillow modes that PNG has a form for; 32-bit numbers go as TIFF, so that the server finds out what is white.
PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
TIFF_MODES = frozenset({"I", "F"})
PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
ORIENTATION_TAG = 0x0112


def encode_image(image: ImageSource) -> bytes:
    """The bytes to send: files and bytes as they are, pixels as PNG or TIFF (lossless).

    An image that Pillow opened from a file keeps the orientation that its EXIF data say, as the file would;
    what was made from it (converted, resized, turned) is sent as it lies.

    Raises OSError for a file that cannot be read, TypeError or ValueError for what is no image.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return _encode_pixels(Image.fromarray(_check_pixels(image)))
    if isinstance(image, Image.Image):
        return _encode_pixels(image)
    raise TypeError(
        f"{type(image).__name__} is no image: give a path, bytes, a Pillow image or a uint8 array"
    )


def _check_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    if pixels.dtype != np.uint8 or not is_image or not pixels.size:
        raise ValueError(
            f"an array of {pixels.dtype} {list(pixels.shape)} is no image: "
            "give uint8 [H, W], [H, W, 3] or [H, W, 4]"
        )
    is_grey = pixels.ndim == 3 and pixels.shape[2] == 1
    return np.ascontiguousarray(pixels[:, :, 0] if is_grey else pixels)


def _encode_pixels(image: Image.Image) -> bytes:
    kept = Image.Exif()
    if image.format is not None:  # straight from a file
        kept[ORIENTATION_TAG] = image.getexif().get(ORIENTATION_TAG, 1)
    if image.mode in PREMULTIPLIED:
        image = image.convert(PREMULTIPLIED[image.mode])
    elif image.mode not in PNG_MODES | TIFF_MODES:  # CMYK, YCbCr, LAB, HSV, the rarer 16 bits
        is_deep = image.mode.startswith("I;16")
        image = image.convert("I").convert("I;16") if is_deep else image.convert("RGB")
    buffer = io.BytesIO()
    if image.mode in TIFF_MODES:
        image.save(buffer, "TIFF", exif=kept)
    else:
        image.save(buffer, "PNG", exif=kept, compress_level=1)  # speed over size: it is decoded once
    return buffer.getvalue()
