"""The images that every benchmark of serving sends: as large and as hard to decode as a camera's."""

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # ships stubs without py.typed
from PIL import Image

IMAGES = 64
SMALL_PX = 64  # networks that see less than this get images of just what they see
QUALITY = 88


def make_images_for(crop_px: int, count: int = IMAGES) -> list[bytes]:
    """448 px a side and 100 kB for a network that sees 224 px; 32 px and 2 kB for one that sees 32."""
    return make_images(crop_px if crop_px < SMALL_PX else 2 * crop_px, QUALITY, count)


def make_images(side: int, quality: int, count: int = IMAGES) -> list[bytes]:
    """JPEGs with the detail of photographs: noise of every size, summed."""
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        total = np.zeros((side, side, 3), np.float32)
        for cells in (4, 8, 16, 32, 64, 128):
            noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
            total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), np.float32)
        pixels = np.ascontiguousarray(((total / 6 - 128) * 2 + 128).clip(0, 255).astype(np.uint8))
        images.append(simplejpeg.encode_jpeg(pixels, quality=quality))
    return images
