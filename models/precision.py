"""Which precision answers when a request names none: fp32, unless int8 costs no more than is allowed."""

from collections.abc import Collection

from models.card import Metric, ModelCard


def measure_int8_loss(card: ModelCard) -> float | None:
    """Top-1 error of int8 above that of fp32 in percentage points, under the card's default policy.

    Of the splits that the card has both for, the worst; None where it has none. Where fp32 was measured under
    several merge rules and none is int8's, the best counts.
    """
    losses = [
        metric.top1_error - min(candidates)
        for metric in card.metrics
        if metric.precision == "int8"
        and metric.tta == card.default_tta
        and (candidates := _list_fp32_errors(card, metric))
    ]
    return max(losses) if losses else None


def choose_precision(
    card: ModelCard, offered: Collection[str], wanted: str, allowed_loss: float | None
) -> str:
    """`wanted`, or int8 where its loss is within `allowed_loss` points; None: what the card allows."""
    allowed = card.int8_allowed_loss if allowed_loss is None else allowed_loss
    loss = measure_int8_loss(card)
    if "int8" in offered and allowed is not None and loss is not None and loss <= allowed:
        return "int8"
    return wanted


def _list_fp32_errors(card: ModelCard, int8: Metric) -> list[float]:
    alike = [
        one
        for one in card.metrics
        if one.precision == "fp32"
        and (one.dataset, one.split, one.tta) == (int8.dataset, int8.split, int8.tta)
    ]
    same = [one for one in alike if (one.merge, one.pool) == (int8.merge, int8.pool)]
    return [one.top1_error for one in same or alike]
