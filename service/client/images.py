"""What a caller may call an image, turned into the bytes that are sent."""

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# A path, encoded bytes, a Pillow image, or pixels: uint8 [H, W] grey or [H, W, 3] RGB or [H, W, 4] RGBA.
ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]


def encode_image(image: ImageSource) -> bytes:
    """The bytes to send: files and bytes as they are, pixels as PNG (lossless).

    Raises OSError for a file that cannot be read, TypeError or ValueError for what is no image.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return _encode_png(Image.fromarray(_check_pixels(image)))
    if isinstance(image, Image.Image):
        return _encode_png(image)
    raise TypeError(
        f"{type(image).__name__} is no image: give a path, bytes, a Pillow image or a uint8 array"
    )


def _check_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not is_image:
        raise ValueError(
            f"an array of {pixels.dtype} {list(pixels.shape)} is no image: "
            "give uint8 [H, W], [H, W, 3] or [H, W, 4]"
        )
    return np.ascontiguousarray(pixels)


def _encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # speed over size: it is decoded once
    return buffer.getvalue()
