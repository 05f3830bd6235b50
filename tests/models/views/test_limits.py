"""Options out of range and views out of proportion are refused before anything is resized."""

import gc
import tracemalloc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from models.card import BadCard, Preprocess, dump_card, parse_card
from models.views import find_policy, list_policies
from models.views.base import BadViewOption, Look, UnknownPolicy, ViewContext, ViewTooLarge
from tests.models.making import random_card
from tests.models.views.looking import CIFAR, IMAGENET, photograph, subject


def context(preprocess: Preprocess = IMAGENET, **changes: object) -> ViewContext:
    return replace(subject("resnet20-cifar", preprocess).context(), **changes)  # type: ignore[arg-type]  # fields


def test_the_catalog_holds_the_six_policies() -> None:
    assert list(list_policies()) == ["adaptive", "center", "dense", "mirror", "multi_scale", "ten_crop"]


def test_card_whose_crop_exceeds_its_resize_is_refused() -> None:
    card = dump_card(random_card()).replace(b'"crop_px": 32', b'"crop_px": 40')
    with pytest.raises(BadCard, match="crop_px is 40, it must be from 1 to resize_px, 36"):
        parse_card(card)


def test_unknown_policy_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownPolicy, match="tta is 'centre', it can be: adaptive, center, dense, mirror"):
        find_policy("centre")


@pytest.mark.parametrize("scales", [(223,), (224, 641), (0,), (-224,), (10**9,), ()], ids=str)
def test_scales_out_of_range_are_refused(scales: tuple[int, ...]) -> None:
    policy = find_policy("multi_scale")
    with pytest.raises(BadViewOption, match="it can hold: 224, 256, 384, 480, 640"):
        policy.shapes(300, 300, context(scales=scales))
    with pytest.raises(BadViewOption):
        next(policy.look(photograph(30, 30), context(scales=scales)))


@pytest.mark.parametrize("policy", ["dense", "multi_scale"])
def test_long_image_is_refused_before_it_is_resized(policy: str) -> None:
    image = photograph(1, 5000)
    tracemalloc.start()
    with pytest.raises(ViewTooLarge, match=r"MP, the limit is 4.0 MP \(SERVE_MAX_VIEW_PIXELS\)"):
        next(find_policy(policy).look(image, context()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("policy", ["center", "mirror", "ten_crop", "adaptive"])
def test_long_image_costs_what_its_crops_cost(policy: str) -> None:
    image = photograph(1, 5000)
    tracemalloc.start()
    look = next(find_policy(policy).look(image, context()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {view.shape for view in look.views} == {(224, 224, 3)}
    assert peak < 5 * sum(view.nbytes for view in look.views) + 100_000


@pytest.mark.parametrize("policy", list_policies())
@pytest.mark.parametrize("size", [(1, 1), (33, 31), (300, 451)], ids=str)
def test_shapes_foretell_the_first_look(policy: str, size: tuple[int, int]) -> None:
    found = find_policy(policy)
    image = photograph(*size)
    look = next(found.look(image, context(CIFAR)))
    foretold = [
        (shape.height, shape.width, 3)
        for shape in found.shapes(*size, context(CIFAR))
        for _ in range(shape.count)
    ]
    assert sorted(view.shape for view in look.views) == sorted(foretold)


@pytest.mark.parametrize("policy", list_policies())
def test_places_lie_where_the_views_were_cut(policy: str) -> None:
    """A picture whose colours are its coordinates: each view's corners name its place."""
    ramp = np.zeros((256, 256, 3), np.uint8)
    ramp[..., 0] = np.arange(256)[:, None]
    ramp[..., 1] = np.arange(256)[None]
    look: Look = next(find_policy(policy).look(ramp, replace(context(CIFAR), keeps_features=True)))
    assert len(look.places) == len(look.views)
    for view, place in zip(look.views, look.places, strict=True):
        left, right = (
            (view[0, -1, 1], view[0, 0, 1]) if place.is_mirrored else (view[0, 0, 1], view[0, -1, 1])
        )
        found = np.array([view[0, 0, 0], left, view[-1, 0, 0], right], float)
        step = 256 / 36
        expected = [place.top, place.left, place.bottom, place.right]
        assert np.abs(found - expected).max() <= step


@pytest.mark.parametrize("policy", [name for name in list_policies() if name != "adaptive"])
def test_waiting_look_does_not_hold_the_image(policy: str) -> None:
    image = photograph(600, 800).copy()
    kept = weakref.ref(image)
    looks = find_policy(policy).look(image, context(CIFAR))
    look = next(looks)
    del image
    gc.collect()
    assert kept() is None
    assert look.views
