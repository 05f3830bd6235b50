"""Views against torchvision, pixel by pixel: Resize, CenterCrop, FiveCrop and TenCrop on photographs."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from models.card import Preprocess
from models.preprocess import resized_size
from models.views import find_policy
from models.views.base import PAPER_SCALES, Look
from tests.models.views.looking import CIFAR, IMAGENET, Pixels, photograph, subject

SIZES = {
    "one pixel": (1, 1),
    "33 x 31": (33, 31),
    "31 x 33": (31, 33),
    "portrait": (451, 300),
    "landscape": (300, 451),
    "square": (256, 256),
    "long": (40, 400),
    "tall": (500, 37),
    "larger than needed": (1333, 1999),
    "CIFAR": (32, 32),
    "already 36": (36, 36),
}
FILTERS = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}

PREPROCESSES = {
    "224 of 256": IMAGENET,
    "224 of 256, bicubic": replace(IMAGENET, interpolation="bicubic"),
    "32 of 32": CIFAR,
    "75 of 90": replace(CIFAR, resize_px=90, crop_px=75),
}

by_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
by_preprocess = pytest.mark.parametrize("preprocess", PREPROCESSES.values(), ids=PREPROCESSES.keys())


def first_look(policy: str, image: Pixels, preprocess: Preprocess) -> Look:
    context = subject("resnet20-cifar", preprocess).context()
    return next(find_policy(policy).look(image, context))


def resize(image: Pixels, side: int, preprocess: Preprocess) -> Image.Image:
    resized: Image.Image = v2.Resize(side, FILTERS[preprocess.interpolation])(Image.fromarray(image))
    return resized


def assert_equal_views(views: Sequence[Pixels], expected: Sequence[Image.Image]) -> None:
    assert len(views) == len(expected)
    for view, image in zip(views, expected, strict=True):
        reference = np.asarray(image)
        assert view.shape == reference.shape
        assert view.flags.c_contiguous
        assert view.dtype == np.uint8
        assert np.abs(view.astype(int) - reference).max() <= 1


@by_size
@by_preprocess
def test_center_is_torchvisions_resize_and_center_crop(size: tuple[int, int], preprocess: Preprocess) -> None:
    image = photograph(*size)
    expected = v2.CenterCrop(preprocess.crop_px)(resize(image, preprocess.resize_px, preprocess))
    assert_equal_views(first_look("center", image, preprocess).views, [expected])


@by_size
@by_preprocess
def test_mirror_is_center_and_its_mirror_image(size: tuple[int, int], preprocess: Preprocess) -> None:
    image = photograph(*size)
    expected = v2.CenterCrop(preprocess.crop_px)(resize(image, preprocess.resize_px, preprocess))
    flipped = v2.functional.horizontal_flip(expected)
    assert_equal_views(first_look("mirror", image, preprocess).views, [expected, flipped])


@by_size
@by_preprocess
def test_ten_crop_is_torchvisions(size: tuple[int, int], preprocess: Preprocess) -> None:
    image = photograph(*size)
    ten: Callable[[Image.Image], list[Image.Image]] = v2.TenCrop(preprocess.crop_px)
    resized = resize(image, preprocess.ten_crop_px, preprocess)
    views = first_look("ten_crop", image, preprocess).views
    assert_equal_views(views, ten(resized))
    assert_equal_views(views[:5], v2.FiveCrop(preprocess.crop_px)(resized))


@by_size
@by_preprocess
def test_dense_is_the_whole_image_and_its_mirror(size: tuple[int, int], preprocess: Preprocess) -> None:
    image = photograph(*size)
    resized = resize(image, preprocess.ten_crop_px, preprocess)
    expected = [resized, v2.functional.horizontal_flip(resized)]
    assert_equal_views(first_look("dense", image, preprocess).views, expected)


@by_size
def test_multi_scale_is_torchvisions_resize_at_each_scale(size: tuple[int, int]) -> None:
    image = photograph(*size)
    sides = {scale: scale * 32 // 224 for scale in PAPER_SCALES}
    assert list(sides.values()) == [32, 36, 54, 68, 91]
    expected = []
    for side in sides.values():
        resized = resize(image, side, CIFAR)
        expected += [resized, v2.functional.horizontal_flip(resized)]
    assert_equal_views(first_look("multi_scale", image, CIFAR).views, expected)


def test_image_of_one_by_five_thousand_pixels_gives_torchvisions_crops() -> None:
    image = photograph(1, 5000)
    resized = resize(image, 36, CIFAR)
    assert resized.size == (180_000, 36)
    assert_equal_views(first_look("ten_crop", image, CIFAR).views, v2.TenCrop(32)(resized))
    center = v2.CenterCrop(32)(resize(image, 32, CIFAR))
    assert_equal_views(first_look("center", image, CIFAR).views, [center])


@pytest.mark.parametrize("size", [(7, 1000), (333, 500), (500, 333), (1, 1), (97, 31)], ids=str)
@pytest.mark.parametrize("side", [32, 36, 91, 224, 256])
def test_resized_size_is_torchvisions(size: tuple[int, int], side: int) -> None:
    width, height = resize(photograph(*size), side, IMAGENET).size
    assert resized_size(*size, side) == (height, width)
