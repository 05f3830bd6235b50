"""Class activation maps: where in the image the evidence for a class is, from the pass that scored it.

A view's map is W[class] . features, the last layer's row applied at every position (Zhou et al. 2016,
"Learning Deep Features for Discriminative Localization", equation 2). The maps of all views are laid over the
image they were cut from, averaged, and turned back to the orientation in which the caller sent it.

    MapCanvas.make(decoded)      before the views are cut: a small copy of the image, so that it can be let go
    draw_map(canvas, sights, row)    when the scores are there: array, box and PNG
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.decode import DecodedImage, turn_back
from models.views.base import Place

# The array's longer side, at most: a 224 px view has 7 x 7 features, so more would be interpolation anyway.
GRID_SIDE = 112
OVERLAY_SIDE = 640
# The hot region is the one around the peak that stays above half of it. Zhou et al. take a fifth, of maps
# whose minimum is not subtracted.
HOT_SHARE = 0.5

_OVERLAY_WEIGHT = 0.6  # of the hottest colour; the image shines through
_BOX_COLOUR = (255, 255, 255)
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, slots=True)
class Sight:
    """What the network saw in one view: the view's place and its last feature map, float32 [C, h, w]."""

    place: Place
    features: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ActivationMap:
    """All in the orientation of the image as sent, before EXIF turns it.

    `array`: float32 [h, w], 0..1, a grid over the whole image, at most GRID_SIDE a side; what no view showed
    is 0. `box`: left, top, right, bottom of the hot region in the image's pixels, right and bottom outside.
    `png`: the overlay, at most OVERLAY_SIDE a side, with the orientation the image had.
    """

    array: NDArray[np.float32]
    box: tuple[int, int, int, int]
    png: bytes


@dataclass(frozen=True, slots=True)
class MapCanvas:
    """What must be kept of an image to draw its map: size upright, orientation, a small copy upright."""

    height: int
    width: int
    orientation: int
    thumbnail: NDArray[np.uint8]

    @classmethod
    def make(cls, image: DecodedImage) -> "MapCanvas":
        height, width = image.pixels.shape[:2]
        small = Image.fromarray(image.pixels)
        small.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE), Image.Resampling.BILINEAR)
        return cls(height, width, image.orientation, np.asarray(small))


def draw_map(canvas: MapCanvas, sights: Sequence[Sight], row: NDArray[np.float32]) -> ActivationMap:
    """Map one class. `row`: that class's weights, float32 [C]; `sights`: every view that was scored."""
    upright = _average_sights(canvas, sights, row)
    array = np.ascontiguousarray(turn_back(upright, canvas.orientation))
    thumbnail = turn_back(canvas.thumbnail, canvas.orientation)
    stored = turn_back(np.empty((canvas.height, canvas.width), bool), canvas.orientation).shape
    box = _find_hot_box(array, stored[0], stored[1])
    overlay = _paint(thumbnail, array)
    _draw_box(overlay, box, stored[1])
    return ActivationMap(array, box, _encode(overlay, canvas.orientation))


def _average_sights(
    canvas: MapCanvas, sights: Sequence[Sight], row: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The mean map over the upright image, scaled to 0..1 where any view looked."""
    rows, columns = _grid_size(canvas.height, canvas.width)
    total = np.zeros((rows, columns), np.float32)
    seen = np.zeros((rows, columns), np.float32)
    for sight in sights:
        evidence = np.einsum("c,chw->hw", row, sight.features)
        place = sight.place
        if place.is_mirrored:
            evidence = evidence[:, ::-1]
        across = _interpolation(place.left, place.right, evidence.shape[1], canvas.width, columns)
        down = _interpolation(place.top, place.bottom, evidence.shape[0], canvas.height, rows)
        total += down @ evidence @ across.T
        seen += np.outer(down.any(axis=1), across.any(axis=1))
    is_seen = seen > 0
    return _scale_to_unit((total / np.maximum(seen, 1)).astype(np.float32), is_seen)


def _grid_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, GRID_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _interpolation(start: float, stop: float, cells: int, size: int, grid: int) -> NDArray[np.float32]:
    """Linear interpolation along one side, from a map's cells to the grid: float32 [grid, cells].

    The map's `cells` cover start..stop of the image's `size` pixels; grid points outside have no weight.
    """
    at = (np.arange(grid) + 0.5) * size / grid  # centres, in pixels of the image
    position = np.clip((at - start) / (stop - start) * cells - 0.5, 0, cells - 1)
    low = np.minimum(position.astype(int), max(cells - 2, 0))
    weights = np.zeros((grid, cells), np.float32)
    weights[np.arange(grid), np.minimum(low + 1, cells - 1)] = position - low
    weights[np.arange(grid), low] += 1 - (position - low)
    half_point = size / grid / 2  # a place narrower than the grid still lies on one point
    weights[(at < start - half_point) | (at > stop + half_point)] = 0
    return weights


def _scale_to_unit(values: NDArray[np.float32], is_seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Least evidence seen -> 0, most -> 1; unseen and flat maps -> 0."""
    low, high = values[is_seen].min(initial=np.inf), values[is_seen].max(initial=-np.inf)
    if not high > low:
        return np.zeros_like(values)
    return np.where(is_seen, (values - low) / (high - low), np.float32(0)).astype(np.float32)


def _find_hot_box(array: NDArray[np.float32], height: int, width: int) -> tuple[int, int, int, int]:
    """The box around the region connected to the peak, in pixels of an image of `height` x `width`."""
    peak = np.unravel_index(int(array.argmax()), array.shape)
    region = np.zeros(array.shape, bool)
    region[peak] = True
    is_hot = array >= HOT_SHARE * array[peak]
    while True:
        grown = _grow(region) & is_hot
        if (grown == region).all():
            break
        region = grown
    down, across = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    cell_height, cell_width = height / array.shape[0], width / array.shape[1]
    return (
        math.floor(across[0] * cell_width),
        math.floor(down[0] * cell_height),
        math.ceil((across[-1] + 1) * cell_width - 1e-9),
        math.ceil((down[-1] + 1) * cell_height - 1e-9),
    )


def _grow(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region and its neighbours up, down, left and right."""
    grown = region.copy()
    grown[1:] |= region[:-1]
    grown[:-1] |= region[1:]
    grown[:, 1:] |= region[:, :-1]
    grown[:, :-1] |= region[:, 1:]
    return grown


def _paint(image: NDArray[np.uint8], array: NDArray[np.float32]) -> Image.Image:
    """Lay the map over the image, from nothing through red to yellow."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    heat = np.asarray(Image.fromarray(array).resize(picture.size, Image.Resampling.BILINEAR))[..., None]
    colour = np.concatenate([np.full_like(heat, 255), 255 * np.clip(2 * heat - 1, 0, 1), 0 * heat], axis=-1)
    weight = _OVERLAY_WEIGHT * np.clip(heat, 0, 1)
    return Image.fromarray(np.rint(image * (1 - weight) + colour * weight).astype(np.uint8))


def _draw_box(overlay: Image.Image, box: tuple[int, int, int, int], width: int) -> None:
    scale = overlay.width / width
    left, top, right, bottom = (side * scale for side in box)
    corners = (left, top, max(left, right - 1), max(top, bottom - 1))
    ImageDraw.Draw(overlay).rectangle(corners, outline=_BOX_COLOUR)


def _encode(overlay: Image.Image, orientation: int) -> bytes:
    """PNG, with the orientation in its eXIf chunk: a viewer shows it as it shows the image sent."""
    exif = Image.Exif()
    exif[_ORIENTATION_TAG] = orientation
    file = io.BytesIO()
    overlay.save(file, "PNG", exif=exif, compress_level=3)
    return file.getvalue()
