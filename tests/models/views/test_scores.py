"""Merged scores against a computation from scratch in torch, on the same views, to 1e-4."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.card import MergeRule, PolicyCard, PoolRule, Preprocess
from models.views import find_policy, list_policies
from models.views.adaptive import count_second_views
from models.views.base import PAPER_SCALES, Scores
from tests.models.views.looking import (
    CIFAR,
    MEAN,
    STD,
    Pixels,
    Subject,
    photograph,
    run_policy,
    subject,
    to_input,
)

# ResNet-18 at a crop of 64 px, where its last feature map is 2 x 2: the same code, a twelfth of the work.
SUBJECTS = {"resnet20-cifar": (CIFAR, 8), "resnet18": (Preprocess(73, 64, MEAN, STD), 2)}
TEMPERATURE = 1.7
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=SUBJECTS)
def network(request: pytest.FixtureRequest) -> Subject:
    return subject(request.param, *SUBJECTS[request.param])


@torch.inference_mode()
def window_logits(subject: Subject, view: Pixels) -> Tensor:
    """Classify every native window of one view, then average the scores over positions: float32 [K]."""
    features = subject.network.features(to_input(view))
    windows = F.avg_pool2d(features, subject.window, stride=1)  # [1, C, h', w']
    scores = subject.network.fc(windows.permute(0, 2, 3, 1))  # [1, h', w', K]
    mean: Tensor = scores.mean(dim=(0, 1, 2))
    return mean


@torch.inference_mode()
def global_logits(subject: Subject, view: Pixels) -> Tensor:
    logits: Tensor = subject.network(to_input(view))[0]
    return logits


def reference(subject: Subject, views: tuple[Pixels, ...], merge: MergeRule, pool: PoolRule) -> Tensor:
    """Probabilities [K]."""
    score = window_logits if pool == "window" else global_logits
    logits = torch.stack([score(subject, view) for view in views])
    merged = logits.mean(dim=0).softmax(dim=0) if merge == "logits" else logits.softmax(dim=1).mean(dim=0)
    tempered = merged ** (1 / TEMPERATURE)
    return tempered / tempered.sum()


def assert_close(found: NDArray[np.float32], expected: Tensor) -> None:
    assert found.dtype == np.float32
    assert np.abs(found - expected.numpy()).max() < TOLERANCE


@pytest.mark.parametrize("size", [(300, 451), (97, 61)], ids=["landscape", "portrait"])
@pytest.mark.parametrize("merge", ["logits", "probabilities"])
@pytest.mark.parametrize("pool", ["window", "global"])
@pytest.mark.parametrize("policy", ["center", "mirror", "ten_crop", "dense", "multi_scale"])
def test_scores_equal_a_computation_from_scratch(
    network: Subject, policy: str, pool: PoolRule, merge: MergeRule, size: tuple[int, int]
) -> None:
    context = network.context(merge=merge, pool=pool, fitted=PolicyCard(temperature=TEMPERATURE))
    scores, looks = run_policy(find_policy(policy), photograph(*size), context, network.network)
    [look] = looks
    assert_close(scores.probabilities, reference(network, look.views, merge, pool))
    score = window_logits if pool == "window" else global_logits
    mean_logits = torch.stack([score(network, view) for view in look.views]).mean(dim=0)
    assert_close(scores.logits, mean_logits)
    assert scores.views == len(look.views)
    assert scores.probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_window_and_global_pooling_differ_above_the_native_size_only(network: Subject) -> None:
    def probabilities(policy: str, pool: PoolRule) -> NDArray[np.float32]:
        context = network.context(pool=pool)
        return run_policy(find_policy(policy), photograph(60, 90), context, network.network)[0].probabilities

    assert np.array_equal(probabilities("ten_crop", "window"), probabilities("ten_crop", "global"))
    assert not np.allclose(probabilities("dense", "window"), probabilities("dense", "global"), atol=1e-5)


def test_scales_narrow_the_set(network: Subject) -> None:
    image = photograph(50, 60)
    context = network.context(scales=(256, 224, 256))
    scores, [look] = run_policy(find_policy("multi_scale"), image, context, network.network)
    assert scores.views == 4
    assert [view.shape[0] for view in look.views] == [
        scale * network.preprocess.crop_px // 224 for scale in (224, 224, 256, 256)
    ]


@pytest.mark.parametrize("policy", list_policies())
def test_asking_for_features_changes_no_score(network: Subject, policy: str) -> None:
    def run(keeps_features: bool) -> Scores:
        context = network.context(keeps_features=keeps_features, scales=PAPER_SCALES[:2])
        scores, looks = run_policy(find_policy(policy), photograph(40, 50), context, network.network)
        assert all(look.features for look in looks) or not keeps_features
        return scores

    assert np.array_equal(run(True).probabilities, run(False).probabilities)
    assert np.array_equal(run(True).logits, run(False).logits)


def margin_of(scores: Scores) -> float:
    best = np.sort(scores.probabilities)[::-1]
    return float(best[0] - best[1])


def test_adaptive_looks_again_only_when_in_doubt(network: Subject) -> None:
    image = photograph(200, 300)
    once, _ = run_policy(find_policy("center"), image, network.context(), network.network)
    ten, _ = run_policy(find_policy("ten_crop"), image, network.context(), network.network)
    doubt = margin_of(once)
    for fitted, views in ((doubt * 0.99, 1), (doubt * 1.01, 10 if network.window == 2 else 11)):
        context = network.context(fitted=PolicyCard(margin=fitted))
        scores, looks = run_policy(find_policy("adaptive"), image, context, network.network)
        assert scores.views == views
        assert len(looks) == (1 if views == 1 else 2)
        expected = once if views == 1 else ten
        assert np.abs(scores.probabilities - expected.probabilities).max() < 1e-6


def test_adaptive_looks_again_as_the_card_names(network: Subject) -> None:
    image = photograph(200, 300)
    mirror, _ = run_policy(find_policy("mirror"), image, network.context(), network.network)
    context = network.context(fitted=PolicyCard(margin=1.1, second="mirror"))
    scores, looks = run_policy(find_policy("adaptive"), image, context, network.network)
    assert [len(look.views) for look in looks] == [1, 1]
    assert scores.views == 2
    assert np.abs(scores.probabilities - mirror.probabilities).max() < 1e-6
    assert count_second_views("mirror", network.preprocess) == 1
    assert count_second_views("ten_crop", network.preprocess) == (9 if network.window == 2 else 10)


def test_temperature_changes_no_ranking(network: Subject) -> None:
    image = photograph(97, 61)
    for merge in ("logits", "probabilities"):
        answers = []
        for temperature in (0.3, 1.0, 3.0):
            context = network.context(merge=merge, fitted=PolicyCard(temperature=temperature))
            scores, _ = run_policy(find_policy("multi_scale"), image, context, network.network)
            answers.append(scores.probabilities)
        assert len({tuple(np.argsort(answer)) for answer in answers}) == 1
        assert answers[0].max() > answers[1].max() > answers[2].max()


def test_adaptive_asks_whether_there_is_time(network: Subject) -> None:
    asked = []

    def refuse(shapes: object) -> bool:
        asked.append(shapes)
        return False

    context = network.context(fitted=PolicyCard(margin=1.1), may_look_again=refuse)
    scores, _ = run_policy(find_policy("adaptive"), photograph(60, 60), context, network.network)
    assert scores.views == 1
    assert len(asked) == 1


def test_adaptive_on_a_large_image_holds_views_only(network: Subject) -> None:
    image = photograph(1400, 1100).copy()
    context = network.context(fitted=PolicyCard(margin=1.1))
    scores, _ = run_policy(find_policy("adaptive"), image, context, network.network)
    ten, _ = run_policy(find_policy("ten_crop"), image, network.context(), network.network)
    assert np.abs(scores.probabilities - ten.probabilities).max() < 1e-6


def test_cost_orders_the_policies(network: Subject) -> None:
    order = ("center", "mirror", "adaptive", "ten_crop", "multi_scale")
    context = network.context(fitted=PolicyCard(mean_views=2.5))
    costs = [find_policy(policy).cost(48, 48, context) for policy in order]
    assert all(cheaper < dearer for cheaper, dearer in pairwise(costs))
    assert costs[0] == 1
    assert costs[3] == 10
    side = network.preprocess.crop_px  # 2 (224^2 + 256^2 + 384^2 + 480^2 + 640^2) / 224^2 = 36.1
    assert find_policy("multi_scale").cost(side, side, context) == pytest.approx(36, abs=0.7)
