"""What a card says of its view policies, fitted on the validation split, which no weight has seen.

records of every policy -> merge and pool rule, temperature, adaptive's second look and margin -> the card
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.card import ModelCard, PolicyCard, SecondLook
from models.engines.base import Engine
from models.views import list_policies
from models.views.adaptive import SECOND_LOOKS, count_second_views
from models.views.merging import temper
from training.calibrate import (
    calibrate,
    calibration_error,
    choose_look,
    error_of,
    fit_margin,
    fit_policy,
    merge_views,
)
from training.data.served import ServedImages
from training.viewing import Record, make_context, record_policy

ADAPTIVE, FIRST = "adaptive", "center"

Scores = NDArray[np.float32]  # [N, K]


def fit_policies(card: ModelCard, engine: Engine, images: ServedImages) -> dict[str, PolicyCard]:
    """Fit every view policy on `images`, the validation split; raises what record_policy does."""
    fitted: dict[str, PolicyCard] = {}
    records: dict[str, Record] = {}
    for tta in list_policies():
        if tta != ADAPTIVE:
            records[tta] = record_policy(tta, images, make_context(card, engine, tta), engine)
            fitted[tta] = fit_policy(records[tta], images.targets)
    fitted[ADAPTIVE] = fit_adaptive(card, records, fitted, images.targets)
    return fitted


def fit_adaptive(
    card: ModelCard,
    records: Mapping[str, Record],
    fitted: Mapping[str, PolicyCard],
    targets: NDArray[np.int64],
) -> PolicyCard:
    """The second look whose answers err least on the validation split; of equals ten_crop."""
    candidates: list[tuple[float, PolicyCard]] = []
    for second in SECOND_LOOKS:
        error, policy = _fit_second(card, records, fitted[second], second, targets)
        candidates.append((error, policy))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _fit_second(
    card: ModelCard,
    records: Mapping[str, Record],
    fitted: PolicyCard,
    second: SecondLook,
    targets: NDArray[np.int64],
) -> tuple[float, PolicyCard]:
    """Validation error and card of looking again as `second`, under its merge rule.

    The temperature is that of the answers given, so it is fitted to them, and the margin again under it.
    """
    again_views = count_second_views(second, card.preprocess)
    first, closer = (_merge(records[tta], fitted) for tta in (FIRST, second))
    margin = fit_margin(
        temper(first, fitted.temperature), temper(closer, fitted.temperature), targets, again_views
    )
    answers, _ = choose_look(first, closer, temper(first, fitted.temperature), margin)
    policy = calibrate(fitted, answers, targets)
    first, closer = (temper(scores, policy.temperature) for scores in (first, closer))
    margin = fit_margin(first, closer, targets, again_views)
    answers, is_again = choose_look(first, closer, first, margin)
    policy = replace(
        policy,
        pool="window",
        margin=margin,
        second=second,
        ece_after=round(calibration_error(answers, targets), 5),
        mean_views=round(1 + again_views * float(is_again.mean()), 3),
    )
    return error_of(answers, targets), policy


def _merge(record: Record, fitted: PolicyCard) -> Scores:
    return merge_views(record.logits["window"], fitted.merge, record.shares)
