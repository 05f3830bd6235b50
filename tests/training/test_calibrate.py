"""What is fitted on a validation split, on scores whose right answer is known."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.card import MergeRule, PolicyCard, PoolRule, Preprocess
from models.views.base import Classifier, MemberLayer, ViewContext, ViewOutput
from models.views.merging import merge_scores, temper
from training.calibrate import (
    calibration_error,
    choose_look,
    error_of,
    fit_margin,
    fit_policy,
    fit_temperature,
    merge_views,
)
from training.viewing import Record


def draw_scores(images: int, views: int, sharpness: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits float32 [N, V, 1, 5], `sharpness` times too sharp, and classes drawn from the true odds."""
    random = np.random.default_rng(0)
    true = random.normal(0, 2, (images, 1, 5))
    odds = torch.from_numpy(true[:, 0]).softmax(dim=1).numpy()
    targets = np.array([random.choice(5, p=one) for one in odds], np.int64)
    return np.repeat(true * sharpness, views, axis=1)[:, :, None].astype(np.float32), targets


@pytest.mark.parametrize("rule", ["probabilities", "logits"])
def test_merging_many_images_equals_merging_each_as_the_service_does(rule: MergeRule) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (6, 10, 2, 5)).astype(np.float32)  # [N, V, M, K]
    shares = np.array([0.75, 0.25], np.float32)
    layers = tuple(
        MemberLayer(float(share), np.zeros((5, 1), np.float32), np.zeros(5, np.float32)) for share in shares
    )
    context = ViewContext(
        preprocess=Preprocess(32, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        window=8,
        classifier=Classifier(np.zeros((5, 2), np.float32), np.zeros(5, np.float32), layers),
        fitted=PolicyCard(temperature=1.7),
        merge=rule,
        pool="window",
        max_view_pixels=1,
    )
    together = temper(merge_views(logits, rule, shares), 1.7)
    for image, merged in zip(logits, together, strict=True):
        alone = merge_scores([ViewOutput(shares @ view, None, view) for view in image], context)
        assert np.allclose(merged, alone.probabilities, atol=1e-6)
        assert np.allclose(alone.logits, shares @ image.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_sharpness(sharpness: float) -> None:
    logits, targets = draw_scores(4000, 1, sharpness)
    fitted = fit_temperature(merge_views(logits, "probabilities"), targets)
    assert fitted == pytest.approx(sharpness, rel=0.15)
    assert fitted != 1 or sharpness == 1


def test_few_images_never_make_probabilities_more_certain() -> None:
    logits, targets = draw_scores(60, 1, 0.5)
    assert fit_temperature(merge_views(logits, "probabilities"), targets) >= 1


def test_the_temperature_never_makes_calibration_worse() -> None:
    """A fifth of the images mistaken for sure: the likelihood of all classes would ask for far more doubt."""
    logits, targets = draw_scores(4000, 1, 1.3)
    targets[:800] = np.argmin(logits[:800, 0, 0], axis=1)
    merged = merge_views(logits, "probabilities")
    fitted = fit_policy(make_record(logits, logits), targets)
    assert fitted.ece_before == round(calibration_error(merged, targets), 5)
    assert fitted.ece_after is not None
    assert fitted.ece_after < fitted.ece_before
    assert fitted.ece_after == round(calibration_error(temper(merged, fitted.temperature), targets), 5)


def make_record(window: NDArray[np.float32], pooled: NDArray[np.float32]) -> Record:
    views = np.full(len(window), window.shape[1])
    logits: dict[PoolRule, NDArray[np.float32]] = {"window": window, "global": pooled}
    return Record(merge_views(window, "logits"), views, logits, np.ones(1, np.float32))


def test_calibration_error_of_known_cases() -> None:
    certain = np.tile(np.array([1, 0], np.float32), (100, 1))
    assert calibration_error(certain, np.repeat([0, 1], 50)) == pytest.approx(0.5)
    assert calibration_error(certain, np.zeros(100, np.int64)) == pytest.approx(0)
    logits, targets = draw_scores(4000, 1, 1.0)
    assert calibration_error(merge_views(logits, "logits"), targets) < 0.03


def test_error_counts_the_true_class_among_the_best() -> None:
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]], np.float32)
    targets = np.array([1, 2])
    assert error_of(scores, targets) == 50
    assert error_of(scores, targets, top=2) == 0


def test_fitting_takes_the_pool_with_the_lesser_error() -> None:
    good, targets = draw_scores(500, 2, 1.0)
    bad = np.roll(good, 1, axis=0)
    fitted = fit_policy(make_record(bad, good), targets)
    assert fitted.pool == "global"
    assert fitted.ece_after is not None
    assert fitted.mean_views == 2


def test_the_margin_looks_again_where_it_helps_and_no_further() -> None:
    """100 doubtful images that the second look puts right, 900 sure ones that are right already."""
    targets = np.zeros(1000, np.int64)
    first = np.tile(np.array([0.95, 0.05], np.float32), (1000, 1))
    first[:100] = (0.45, 0.55)
    second = np.tile(np.array([0.9, 0.1], np.float32), (1000, 1))
    margin = fit_margin(first, second, targets, looks=9)
    answers, is_again = choose_look(first, second, first, margin)
    assert 0.1 <= margin <= 0.9
    assert is_again.sum() == 100
    assert error_of(answers, targets) == 0


def test_the_margin_is_zero_where_a_second_look_harms() -> None:
    targets = np.zeros(1000, np.int64)
    first = np.tile(np.array([0.6, 0.4], np.float32), (1000, 1))
    assert fit_margin(first, first[:, ::-1].copy(), targets, looks=10) == 0


def test_the_margin_keeps_to_two_views_an_image() -> None:
    random = np.random.default_rng(0)
    first = np.stack([p := random.uniform(0, 0.5, 2000), 1 - p], axis=1).astype(np.float32)
    second = np.tile(np.array([1, 0], np.float32), (2000, 1))
    margin = fit_margin(first, second, np.zeros(2000, np.int64), looks=10)
    _, is_again = choose_look(first, second, first, margin)
    assert 1.9 < 1 + 10 * is_again.mean() <= 2
