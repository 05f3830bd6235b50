"""What is known of an image before any of its pixels is decoded, and what a format is.

Each container is walked by code of ours, because a decoder must never see what pixels do not depend on: text,
colour profiles, thumbnails, EXIF and further frames are where decompression bombs and endless loops live.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.decode.errors import BrokenImage

Pixels = NDArray[np.uint8]  # [H, W, 3], RGB

# What any decode costs beside its pixels: tables, row buffers, Python objects. Measured, rounded up.
FIXED_COST_BYTES = 1 << 20
# Once decoded: 3 bytes a pixel, and 4 for Pillow's copy while they are resized, or 3 for turning upright.
DECODED_PIXEL_COST = 7.0


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """`height`, `width` as stored, in pixels; `orientation` 1..8 as in EXIF, what turns them upright.

    `cost_bytes` estimates the most memory that decoding and resizing will hold at once, on top of the file.
    `is_cmyk`: it has four colours, which decoders for screens do not take.
    """

    format: str
    height: int
    width: int
    orientation: int
    cost_bytes: int
    is_cmyk: bool = False

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def oriented_size(self) -> tuple[int, int]:
        """(height, width) as a viewer shows the image: orientations 5 to 8 swap the sides."""
        if self.orientation >= 5:
            return self.width, self.height
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """One accepted format. `read_header` and `read_pixels` raise UnsupportedFormat and BrokenImage.

    `matches` looks at the first bytes alone; `read_pixels` gets what `read_header` returned, when the limits
    have let it through, and returns uint8 RGB [H, W, 3] in stored orientation.
    """

    name: str
    matches: Callable[[bytes], bool]
    read_header: Callable[[bytes], ImageHeader]
    read_pixels: Callable[[bytes, ImageHeader], Pixels]


def make_header(
    name: str, size: tuple[int, int], orientation: int, pixel_cost: float, copied_bytes: int = 0
) -> ImageHeader:
    """A header of `size` (height, width); raises BrokenImage for empty images.

    Decoding holds `pixel_cost` bytes a pixel, and `copied_bytes` for a cleaned copy of the file.
    """
    height, width = size
    if height < 1 or width < 1:
        raise BrokenImage(f"{name} image has {width} x {height} pixels")
    cost_bytes = FIXED_COST_BYTES + copied_bytes + int(height * width * max(pixel_cost, DECODED_PIXEL_COST))
    return ImageHeader(name, height, width, orientation, cost_bytes)
