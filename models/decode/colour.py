"""Whatever a decoder yields -> 8-bit RGB: palettes, grey, 16 and 32 bits, floats, CMYK, alpha over white."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.decode.header import Pixels

_WHITE = (255, 255, 255)


def to_rgb(image: Image.Image) -> Pixels:
    """A loaded Pillow image of any mode -> uint8 RGB [H, W, 3]; raises what Pillow's conversions raise."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return np.asarray(image)
    if image.mode[0] in "IF":  # I, F and the family of I;16
        return _grey_to_rgb(image)
    if image.has_transparency_data:
        return _over_white(image)
    return np.asarray(image.convert("RGB"))


def _over_white(image: Image.Image) -> Pixels:
    """Compose an image with alpha, or with one transparent colour, over white."""
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode[:-1] + "A")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", rgba.size, _WHITE)
    canvas.paste(rgba, mask=rgba)
    return np.asarray(canvas)


def _grey_to_rgb(image: Image.Image) -> Pixels:
    """Deep grey -> RGB, its transparent value (16-bit PNG has one) as white."""
    values = np.asarray(image)
    is_16_bit = image.mode.startswith("I;16")
    grey: NDArray[np.uint8] = (values >> 8 if is_16_bit else _scale_to_byte(values)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))


def _scale_to_byte(values: NDArray[np.int32] | NDArray[np.float32]) -> NDArray[np.float32]:
    """32-bit integers or floats [H, W] -> 0..255, their white taken from their largest value.

    Such files do not say what white is. The conventions in use are told apart by the maximum: floats up to
    1; 8 bits up to 255; 16 bits up to 65535; beyond, the maximum itself. NaN and negatives are black.
    """
    grey = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    np.maximum(grey, 0.0, out=grey)
    top = float(grey.max(initial=0.0))
    is_unit = values.dtype.kind == "f" and top <= 1.0
    white = 1.0 if is_unit else next((limit for limit in (255.0, 65535.0) if top <= limit), top)
    grey *= np.float32(255.0 / white)
    grey += np.float32(0.5)
    np.minimum(grey, np.float32(255.0), out=grey)
    return grey
