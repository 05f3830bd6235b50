"""Activation maps lie where the evidence is, in the orientation the image was sent in."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.decode import DecodedImage, turn_back
from models.maps import GRID_SIDE, OVERLAY_SIDE, MapCanvas, Sight, draw_map
from models.views import find_policy, list_policies
from models.views.base import Look, Place, ViewOutput
from tests.models.views.looking import CIFAR, Subject, compute, photograph, subject

ROW = np.array([1.0, -1.0], np.float32)


def canvas(height: int, width: int, orientation: int = 1) -> MapCanvas:
    return MapCanvas.make(DecodedImage(photograph(height, width), "JPEG", orientation))


def spot(place: Place, row: int, column: int, cells: int = 8) -> Sight:
    """Features of two channels whose evidence, under ROW, is at one cell."""
    features = np.zeros((2, cells, cells), np.float32)
    features[0, row, column] = 3.0
    features[1] = 0.5  # evidence against, everywhere: it must cancel out
    return Sight(place, features)


def whole(height: int, width: int) -> Place:
    return Place(0, 0, width, height, is_mirrored=False)


def test_hot_region_is_where_the_evidence_is() -> None:
    found = draw_map(canvas(80, 160), [spot(whole(80, 160), 1, 6)], ROW)
    assert found.array.shape == (56, GRID_SIDE)
    assert found.array.dtype == np.float32
    row, column = np.unravel_index(int(found.array.argmax()), found.array.shape)
    assert (int(row) // 7, int(column) // 14) == (1, 6)
    left, top, right, bottom = found.box
    assert left <= 120 and right >= 140 and top <= 10 and bottom >= 20  # noqa: PT018  # the cell, in pixels
    assert right - left <= 50
    assert bottom - top <= 25


def test_map_is_scaled_to_one_and_interpolated_linearly() -> None:
    found = draw_map(canvas(64, 64), [spot(whole(64, 64), 3, 3)], ROW)
    assert found.array.shape == (64, 64)
    assert found.array.min() == 0
    assert found.array.max() == 1
    centre = 3.5 * 8
    expected = np.clip(1 - np.abs(np.arange(64) + 0.5 - centre) / 8, 0, 1)
    line = found.array[27] / found.array[27].max()
    assert np.abs(line - expected / expected.max()).max() < 1e-5


def test_view_of_a_part_is_laid_over_that_part() -> None:
    place = Place(100, 20, 140, 60, is_mirrored=False)
    found = draw_map(canvas(80, 160), [spot(place, 0, 0)], ROW)
    assert found.array[:13].max() == 0
    left, top, right, bottom = found.box
    assert 98 <= left <= 100  # a point of the grid is 1.4 pixels
    assert 18 <= top <= 20
    assert right <= 115
    assert bottom <= 35


def test_mirrored_view_is_turned_back() -> None:
    plain = draw_map(canvas(64, 64), [spot(Place(0, 0, 64, 64, is_mirrored=False), 2, 6)], ROW)
    mirrored = draw_map(canvas(64, 64), [spot(Place(0, 0, 64, 64, is_mirrored=True), 2, 1)], ROW)
    assert np.array_equal(plain.array, mirrored.array)
    assert plain.box == mirrored.box


def test_views_are_averaged_where_they_overlap() -> None:
    evidence, nothing = np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), np.float32)
    evidence[0] = 2
    left = Sight(Place(0, 0, 40, 64, is_mirrored=False), evidence)
    right = Sight(Place(24, 0, 64, 64, is_mirrored=False), nothing)
    array = draw_map(canvas(64, 64), [left, right], ROW).array
    assert array[0, 0] == 1
    assert array[0, 32] == pytest.approx(0.5)
    assert array[0, 63] == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_map_is_aligned_with_the_image_as_sent(orientation: int) -> None:
    """What is hot upright must be hot at the same pixels once the orientation is undone."""
    upright = draw_map(canvas(64, 96), [spot(whole(64, 96), 1, 6)], ROW)
    found = draw_map(canvas(64, 96, orientation), [spot(whole(64, 96), 1, 6)], ROW)
    assert np.array_equal(found.array, turn_back(upright.array, orientation))
    left, top, right, bottom = upright.box
    region = np.zeros((64, 96), bool)
    region[top:bottom, left:right] = True
    stored = turn_back(region, orientation)
    left, top, right, bottom = found.box
    assert stored[top:bottom, left:right].all()
    assert stored.sum() == (bottom - top) * (right - left)


@pytest.mark.parametrize("orientation", [1, 6])
def test_overlay_is_a_png_that_viewers_turn_like_the_image(orientation: int) -> None:
    found = draw_map(canvas(300, 451, orientation), [spot(whole(300, 451), 1, 6)], ROW)
    overlay = Image.open(io.BytesIO(found.png))
    assert overlay.format == "PNG"
    assert overlay.size == ((451, 300) if orientation == 1 else (300, 451))
    upright = np.asarray(ImageOps.exif_transpose(overlay).convert("RGB")).astype(int)
    reddening = upright - photograph(300, 451)
    row, column = int(1.5 * 300 / 8), int(6.5 * 451 / 8)
    assert reddening[row, column, 0] - reddening[row, column, 2] > 100
    assert np.abs(reddening[250:, :100]).max() == 0


def test_large_image_gets_a_small_overlay_and_a_box_in_its_own_pixels() -> None:
    found = draw_map(canvas(1200, 1800), [spot(whole(1200, 1800), 7, 7)], ROW)
    assert Image.open(io.BytesIO(found.png)).size[0] == OVERLAY_SIDE
    assert found.box[2:] == (1800, 1200)
    assert found.box[0] > 1300


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)], ids=str)
def test_odd_sizes_have_maps(size: tuple[int, int]) -> None:
    found = draw_map(canvas(*size), [spot(whole(*size), 0, 0)], ROW)
    left, top, right, bottom = found.box
    assert 0 <= left < right <= size[1]
    assert 0 <= top < bottom <= size[0]
    assert Image.open(io.BytesIO(found.png)).format == "PNG"


def test_no_evidence_is_a_map_of_zeros() -> None:
    found = draw_map(canvas(40, 50), [Sight(whole(40, 50), np.zeros((2, 8, 8), np.float32))], ROW)
    assert not found.array.any()
    assert found.box == (0, 0, 50, 40)


def looks_of(policy: str, image: NDArray[np.uint8], subject: Subject) -> list[tuple[Look, list[ViewOutput]]]:
    looks = find_policy(policy).look(image, subject.context(keeps_features=True))
    taken: list[tuple[Look, list[ViewOutput]]] = []
    try:
        look = next(looks)
        while True:
            taken.append((look, compute(subject.network, look)))
            look = looks.send(taken[-1][1])
    except StopIteration:
        return taken


@pytest.mark.parametrize("policy", list_policies())
def test_mean_of_a_views_map_is_its_score(policy: str) -> None:
    """W[class] . features, averaged over positions, plus the bias, is the logit."""
    small = subject("resnet20-cifar", CIFAR)
    context = small.context()
    image = photograph(60, 70)
    sights = []
    for look, outputs in looks_of(policy, image, small):
        for place, output in zip(look.places, outputs, strict=True):
            assert output.features is not None
            evidence = np.einsum("c,chw->hw", context.classifier.weight[3], output.features)
            assert evidence.mean() + context.classifier.bias[3] == pytest.approx(output.logits[3], abs=1e-4)
            sights.append(Sight(place, output.features))
    found = draw_map(MapCanvas.make(DecodedImage(image, "PNG", 1)), sights, context.classifier.weight[3])
    assert found.array.shape == (60, 70)
    assert found.array.max() == 1
