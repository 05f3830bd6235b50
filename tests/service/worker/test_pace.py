"""How fast the backlog goes down, on a clock of the test's own."""

import pytest

from service.worker.backlog import Backlog
from service.worker.pace import LEAST, SPAN_S, Pace
from tests.service.worker.parts import Line

STEP_S = 0.01


def work(pace: Pace, seconds: float, speed: float, began: float = 0.0) -> float:
    """Two lanes that do `speed` times what was predicted, with more to do; returns when they stopped."""
    steps = round(seconds / STEP_S)
    for step in range(steps + 1):
        pace.note(2 * speed * STEP_S * 1000, began + step * STEP_S, is_more=True)
    return began + steps * STEP_S


@pytest.mark.parametrize("speed", [1.0, 0.7, 0.3])
def test_rate_follows_what_lanes_get_done(speed: float) -> None:
    pace = Pace(2)
    assert pace.rate == 2.0
    work(pace, 8 * SPAN_S, speed)
    assert pace.rate == pytest.approx(2 * speed, rel=0.02)


def test_nothing_is_faster_than_predicted_and_a_stall_no_end() -> None:
    fast, still = Pace(2), Pace(2)
    work(fast, SPAN_S, 3.0)
    work(still, 20 * SPAN_S, 0.0)
    assert (fast.rate, still.rate) == (2.0, 2 * LEAST)


def test_time_without_work_is_not_slow_work() -> None:
    pace = Pace(2)
    ended = work(pace, SPAN_S, 1.0)
    pace.note(20.0, ended + STEP_S, is_more=False)
    pace.note(20.0, ended + SPAN_S / 2, is_more=True)
    assert pace.rate == pytest.approx(2.0)


def test_what_was_slow_long_ago_is_forgotten() -> None:
    pace = Pace(2)
    ended = work(pace, 4 * SPAN_S, 0.2)
    pace.note(4.0, ended + STEP_S, is_more=False)
    assert pace.rate < 1.0
    pace.note(20.0, ended + 2 * SPAN_S, is_more=True)
    assert pace.rate == 2.0


def test_time_without_work_is_no_slowness() -> None:
    """The last request is forgotten, not settled: what its views cost had been predicted anew meanwhile."""
    line = Line()
    backlog = Backlog({"center": 100.0}, "center", lanes=2)
    last = line.ask()
    backlog.arrive(last)
    backlog.start(0, 10.0, 100.0)
    backlog.end(0)
    backlog.forget(last)
    for request in (line.ask(), line.ask()):
        backlog.arrive(request)
    backlog.start(0, 15.0, 100.0)  # after five idle seconds
    assert backlog.wait_ms(15.0) == pytest.approx(3 * 100.0 / 2, rel=0.01)
    line.close()
