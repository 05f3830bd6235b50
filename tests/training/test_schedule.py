"""Learning rates, held against the figures of the paper."""

import pytest

from training.recipe import ScheduleRecipe
from training.schedule import (
    WARMUP_WINDOW,
    ScheduleState,
    after_batch,
    after_evaluation,
    is_warming,
    learning_rate,
)

PAPER = ScheduleRecipe(kind="step", iterations=64_000, milestones=(32_000, 48_000))
FRESH = ScheduleState()


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.1), (31_999, 0.1), (32_000, 0.01), (47_999, 0.01), (48_000, 0.001), (63_999, 0.001)],
)
def test_cifar_rate_falls_at_32k_and_48k(step: int, rate: float) -> None:
    assert learning_rate(PAPER, 0.1, FRESH, step, 64_000) == pytest.approx(rate)


def test_110_layers_begin_at_a_hundredth_until_the_error_is_below_80() -> None:
    rule = ScheduleRecipe(iterations=64_000, milestones=(32_000,), warmup_lr=0.01, warmup_until_error=80)
    state = FRESH
    for _ in range(5 * WARMUP_WINDOW):
        state = after_batch(rule, state, 88.0)
    assert is_warming(rule, state)
    assert learning_rate(rule, 0.1, state, 500, 64_000) == 0.01
    for _ in range(WARMUP_WINDOW):
        state = after_batch(rule, state, 79.0)
    assert not is_warming(rule, state)
    assert learning_rate(rule, 0.1, state, 600, 64_000) == 0.1
    assert after_batch(rule, state, 95.0) == state  # it does not come back


def test_one_lucky_batch_does_not_end_the_warm_up() -> None:
    rule = ScheduleRecipe(iterations=10, warmup_lr=0.01, warmup_until_error=80)
    assert is_warming(rule, after_batch(rule, FRESH, 10.0))


def test_plateau_divides_by_ten_when_the_error_stays() -> None:
    rule = ScheduleRecipe(kind="plateau", iterations=600_000, patience=2)
    state, rates = FRESH, []
    for error in (70.0, 60.0, 61.0, 60.0, 55.0, 56.0, 57.0):
        state = after_evaluation(rule, state, error)
        rates.append(learning_rate(rule, 0.1, state, 0, 600_000))
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001])


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_a_cycle_rises_then_falls_to_zero(kind: str) -> None:
    rule = ScheduleRecipe(kind=kind, iterations=100, warmup_iterations=20)  # type: ignore[arg-type]
    rates = [learning_rate(rule, 0.4, FRESH, step, 100) for step in range(101)]
    assert rates[19] == pytest.approx(0.4)
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[100] == pytest.approx(0)
    assert rates[60] == pytest.approx(0.2)
