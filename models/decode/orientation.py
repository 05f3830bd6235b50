"""EXIF orientation: finding the one tag that matters without parsing EXIF, and turning pixels upright.

EXIF 2.32 section 4.6.4: tag 0x0112 of the first directory, a SHORT, 1..8. Whatever is wrong with an EXIF
block costs its orientation only, never the image.
"""

import struct

import numpy as np

from models.decode.header import Pixels

UPRIGHT = 1
_TAG = 0x0112
_SHORT, _LONG = 3, 4
_MAX_ENTRIES = 1024  # cameras write about 20; a directory of 65,535 is somebody's joke


def read_orientation(exif: bytes) -> int:
    """The orientation 1..8 in an EXIF block (with or without its `Exif\\0\\0` prefix); 1 if there is none."""
    tiff = exif[6:] if exif[:6] == b"Exif\0\0" else exif
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return UPRIGHT
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    if at + 2 > len(tiff):
        return UPRIGHT
    (entries,) = struct.unpack_from(order + "H", tiff, at)
    for start in range(at + 2, min(at + 2 + 12 * min(entries, _MAX_ENTRIES), len(tiff) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, start)
        if tag == _TAG and count == 1 and kind in (_SHORT, _LONG):
            (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), tiff, start + 8)
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels as stored [H, W, 3] -> as a viewer shows them; contiguous. Orientations 5 to 8 swap H and W."""
    if orientation == UPRIGHT:
        return pixels
    return np.ascontiguousarray(_turn(pixels, orientation))


def turn_back(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo turn_upright: an array [H, W, ...] aligned with the upright image -> with the stored one."""
    # 6 and 8 are each other's inverse; every other orientation is its own.
    return _turn(array, {6: 8, 8: 6}.get(orientation, orientation))


def _turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """A view of `array` [H, W, ...]: transposed for 5..8, then flipped as the orientation says."""
    turned = array.swapaxes(0, 1) if orientation >= 5 else array
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return turned[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
