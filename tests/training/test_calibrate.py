"""What is fitted on a validation split, on scores whose right answer is known."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.card import MergeRule, PolicyCard, Preprocess
from models.views.base import Classifier, ViewContext, ViewOutput
from models.views.merging import merge_scores
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
    """Logits float32 [N, V, 5] that are `sharpness` times too sharp, and classes drawn from the true odds."""
    random = np.random.default_rng(0)
    true = random.normal(0, 2, (images, 1, 5))
    odds = torch.from_numpy(true[:, 0]).softmax(dim=1).numpy()
    targets = np.array([random.choice(5, p=one) for one in odds], np.int64)
    return np.repeat(true * sharpness, views, axis=1).astype(np.float32), targets


@pytest.mark.parametrize("rule", ["probabilities", "logits"])
def test_merging_many_images_equals_merging_each_as_the_service_does(rule: MergeRule) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (6, 10, 5)).astype(np.float32)
    context = ViewContext(
        preprocess=Preprocess(32, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        window=8,
        classifier=Classifier(np.zeros((5, 1), np.float32), np.zeros(5, np.float32)),
        fitted=PolicyCard(temperature=1.7),
        merge=rule,
        pool="window",
        max_view_pixels=1,
    )
    together = merge_views(logits, rule, 1.7)
    for image, merged in zip(logits, together, strict=True):
        alone = merge_scores([ViewOutput(view, None) for view in image], context)
        assert np.allclose(merged, alone.probabilities, atol=1e-6)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_sharpness(sharpness: float) -> None:
    logits, targets = draw_scores(4000, 1, sharpness)
    assert fit_temperature(logits, "probabilities", targets) == pytest.approx(sharpness, rel=0.08)


def test_few_images_never_make_probabilities_more_certain() -> None:
    logits, targets = draw_scores(60, 1, 0.5)
    assert fit_temperature(logits, "probabilities", targets) >= 1


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
    record = Record(merge_views(good, "logits"), np.full(500, 2), {"window": bad, "global": good}, 1.0)
    fitted = fit_policy(record, targets)
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
    answers, is_again = choose_look(first, second, margin)
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
    _, is_again = choose_look(first, second, margin)
    assert 1.9 < 1 + 10 * is_again.mean() <= 2
