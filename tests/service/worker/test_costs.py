"""The cost model: interpolation, full batches, budgets, and learning from what batches took."""

import pytest

from service.worker.costs import HANDLING_MS, MAX_SHAPES, CostModel, Curve, Measured

SHAPE = (10, 10)  # 100 pixels
# One view 2 ms, two 3 ms, four 5 ms, eight 10.4 ms: the sixth view is no cheaper than the fourth.
CURVE = Curve([Measured(100, 2.0), Measured(200, 3.0), Measured(400, 5.0), Measured(800, 10.4)])


@pytest.mark.parametrize(
    ("pixels", "expected_ms"),
    [
        pytest.param(200, 3.0, id="a measured size"),
        pytest.param(300, 4.0, id="between two"),
        pytest.param(1600, 20.8, id="beyond the last, in proportion"),
        pytest.param(80, 1.6, id="a little below the first, in proportion"),
        pytest.param(1, 1.0, id="far below the first, half of it"),
    ],
)
def test_curve_reads_linearly(pixels: int, expected_ms: float) -> None:
    assert CURVE.read(pixels) == pytest.approx(expected_ms)


def test_batch_is_full_where_views_get_no_cheaper() -> None:
    assert CostModel(CURVE, CURVE, 64).full_views(SHAPE) == 4


def test_full_batch_never_exceeds_the_most_views() -> None:
    assert CostModel(CURVE, CURVE, 2).full_views(SHAPE) == 2


def test_fit_keeps_the_budget_and_is_at_least_one() -> None:
    costs = CostModel(CURVE, CURVE, 64)
    views = costs.fit(SHAPE, 12.0)
    assert costs.view_ms(SHAPE) * views <= 12.0
    assert costs.view_ms(SHAPE) * (views + 1) > 12.0
    assert costs.fit(SHAPE, 0.001) == 1


def test_prediction_follows_what_batches_took() -> None:
    costs = CostModel(CURVE, CURVE, 64)
    for _ in range(100):
        costs.observe(SHAPE, 1, 1, 4.0)
    assert costs.predict(SHAPE, 1) == pytest.approx(4.0 + HANDLING_MS, rel=0.01)


def test_shape_never_seen_is_corrected_like_all_others() -> None:
    costs = CostModel(CURVE, CURVE, 64)
    for _ in range(100):
        costs.observe(SHAPE, 1, 1, 4.0)
    assert costs.predict((20, 20), 1) == pytest.approx(10.0 + HANDLING_MS, rel=0.01)


def test_wide_and_narrow_are_learnt_apart() -> None:
    costs = CostModel(CURVE, CURVE, 64)
    for _ in range(100):
        costs.observe(SHAPE, 1, 2, 1.0)
    assert costs.predict(SHAPE, 1, 2) == pytest.approx(1.0 + HANDLING_MS, rel=0.01)
    assert costs.predict(SHAPE, 1, 1) == pytest.approx(2.0 + HANDLING_MS)


def test_stall_teaches_nothing() -> None:
    costs = CostModel(CURVE, CURVE, 64)
    costs.observe(SHAPE, 1, 1, 4000.0)
    assert costs.predict(SHAPE, 1) == pytest.approx(2.0 + HANDLING_MS)


def test_refused_size_is_never_tried_again() -> None:
    costs = CostModel(CURVE, CURVE, 64)
    costs.refuse(SHAPE, 4)
    assert costs.full_views(SHAPE) == 2
    assert costs.fit(SHAPE, 1000.0) == 2


def test_only_so_many_shapes_are_remembered() -> None:
    costs = CostModel(CURVE, CURVE, 64)
    drift = costs._drift[True]
    for width in range(1, MAX_SHAPES + 500):
        costs.full_views((10, width))
        costs.observe((10, width), 1, 1, CURVE.read(10 * width))
        costs.refuse((10, width), 4)
    assert len(drift.by_shape) == len(costs._full) == len(costs._room) == MAX_SHAPES
