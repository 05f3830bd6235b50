"""What is refused, what is made cheaper, and when a caller is asked back."""

import pytest

from service.admission import InflightBudget, check_wait, choose_policy, predict_retry_s
from service.errors import DeadlinePassed, Overloaded, PoisonImage, TooLarge
from service.quarantine import MAX_IMAGES, QUARANTINE_S, Quarantine

COST_MS = {"center": 1.0, "flip": 2.0, "ten_crop": 10.0, "multi_scale": 30.0}


def make_budget(limit_bytes: int) -> InflightBudget:
    """A budget that asks callers back in 4 s."""
    return InflightBudget(limit_bytes, lambda: 4.0)


def test_bytes_are_held_until_the_lease_ends() -> None:
    budget = make_budget(100)
    with budget.reserve(60) as lease:
        with pytest.raises(Overloaded, match="SERVE_MAX_INFLIGHT_BYTES") as caught:
            budget.reserve(41)
        assert caught.value.retry_after_s == 4.0
        lease.grow(40)
        assert budget.held_bytes == 100
    assert budget.held_bytes == 0


def test_lease_that_cannot_grow_keeps_what_it_held() -> None:
    budget = make_budget(100)
    with budget.reserve(60) as lease:
        with pytest.raises(Overloaded):
            lease.grow(50)
        assert budget.held_bytes == 60
    assert budget.held_bytes == 0


def test_what_never_fits_is_too_large() -> None:
    with pytest.raises(TooLarge):
        make_budget(100).reserve(101)


def test_wait_over_the_limit_is_refused() -> None:
    check_wait(2000.0, 2000.0, 9000.0)
    with pytest.raises(Overloaded, match="SERVE_MAX_WAIT_MS"):
        check_wait(2001.0, 2000.0, 9000.0)


def test_what_is_past_its_deadline_is_not_called_an_overload() -> None:
    with pytest.raises(DeadlinePassed):
        check_wait(0.0, 100.0, -1.0)


def test_wait_past_the_deadline_is_refused_at_once() -> None:
    with pytest.raises(Overloaded, match="deadline is in 100 ms"):
        check_wait(500.0, 2000.0, 100.0)


@pytest.mark.parametrize(
    ("wait_ms", "limit_ms", "seconds"),
    [
        pytest.param(10_000.0, 2_000.0, 9.0, id="until the queue is at half its limit"),
        pytest.param(2_100.0, 2_000.0, 1.1, id="a little over"),
        pytest.param(600.0, 500.0, 1.0, id="never under a second"),
    ],
)
def test_callers_are_asked_back_when_there_is_room(wait_ms: float, limit_ms: float, seconds: float) -> None:
    assert predict_retry_s(wait_ms, limit_ms) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("wait_ms", "used"),
    [
        (0.0, "multi_scale"),
        (1000.0, "multi_scale"),
        (1010.0, "ten_crop"),
        (1500.0, "flip"),
        (2000.0, "center"),
    ],
)
def test_policy_steps_down_as_the_limit_comes_near(wait_ms: float, used: str) -> None:
    assert choose_policy("multi_scale", COST_MS, wait_ms, 2000.0) == used


def test_cheapest_policy_stays() -> None:
    assert choose_policy("center", COST_MS, 1999.0, 2000.0) == "center"


def test_policy_of_unknown_cost_stays() -> None:
    assert choose_policy("adaptive", COST_MS, 1999.0, 2000.0) == "adaptive"


def test_quarantined_image_is_refused_until_it_expires() -> None:
    now = 0.0
    quarantine = Quarantine(lambda: now)
    quarantine.check(b"image")
    quarantine.add(b"image")
    quarantine.check(b"another")
    with pytest.raises(PoisonImage):
        quarantine.check(b"image")
    now = QUARANTINE_S + 1
    quarantine.check(b"image")


def test_quarantine_forgets_the_oldest() -> None:
    quarantine = Quarantine()
    for number in range(MAX_IMAGES + 1):
        quarantine.add(b"%d" % number)
    quarantine.check(b"0")
    with pytest.raises(PoisonImage):
        quarantine.check(b"1")
