"""When int8 answers unasked: only where its measured loss is allowed."""

from dataclasses import replace

import pytest

from models.card import Metric, parse_card
from models.precision import choose_precision, measure_int8_loss
from tests.serving import ROOT

CARD = parse_card((ROOT / "models" / "zoo" / "cifar10" / "1" / "card.json").read_bytes())
BOTH = ("fp32", "int8")


def test_loss_of_the_shipped_model_is_the_difference_of_its_card() -> None:
    assert measure_int8_loss(CARD) == pytest.approx(9.49 - 9.36)


@pytest.mark.parametrize(
    ("allowed", "by_card", "chosen"),
    [
        (None, None, "fp32"),
        (0.0, None, "fp32"),
        (0.1, None, "fp32"),
        (0.2, None, "int8"),
        (None, 0.2, "int8"),
        (0.0, 0.2, "fp32"),  # the operator has the last word
    ],
)
def test_int8_answers_where_its_loss_is_allowed(
    allowed: float | None, by_card: float | None, chosen: str
) -> None:
    assert choose_precision(replace(CARD, int8_allowed_loss=by_card), BOTH, "fp32", allowed) == chosen


def test_unmeasured_or_missing_int8_never_answers() -> None:
    metrics = tuple(one for one in CARD.metrics if one.precision != "int8")
    assert choose_precision(replace(CARD, metrics=metrics), BOTH, "fp32", 100.0) == "fp32"
    assert choose_precision(CARD, ("fp32",), "fp32", 100.0) == "fp32"


def test_worst_of_several_splits_counts() -> None:
    more = (Metric("D", "test", 10, "center", 5.0), Metric("D", "test", 10, "center", 9.0, precision="int8"))
    assert measure_int8_loss(replace(CARD, metrics=CARD.metrics + more)) == 4.0
