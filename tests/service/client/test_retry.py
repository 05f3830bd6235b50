"""The client tries again what may pass later, as late as the server asks, and never past the deadline."""

import time

import pytest

from service.client.outcome import ConnectionFailed
from service.client.retry import Patience
from service.errors import BrokenImage, DeadlinePassed, NoWorker, Overloaded, RateLimited, ServiceError


def patience(attempts: int = 5, seconds: float = 60.0) -> Patience:
    return Patience(attempts, time.monotonic() + seconds)


@pytest.mark.parametrize("error", [Overloaded("x"), RateLimited("x"), ConnectionFailed("x"), NoWorker("x")])
def test_what_may_pass_later_is_tried_again(error: ServiceError) -> None:
    assert patience().pause_after(error) is not None


@pytest.mark.parametrize("error", [BrokenImage("x"), DeadlinePassed("x")])
def test_what_cannot_pass_later_is_not(error: ServiceError) -> None:
    assert patience().pause_after(error) is None


def test_retry_after_is_the_least_pause() -> None:
    pause_s = patience().pause_after(Overloaded("x", retry_after_s=7.0))
    assert pause_s is not None
    assert pause_s >= 7.0


def test_pause_past_the_deadline_gives_up_at_once() -> None:
    assert patience(seconds=5.0).pause_after(Overloaded("x", retry_after_s=7.0)) is None


def test_attempts_are_counted() -> None:
    budget = patience(attempts=3)
    assert budget.pause_after(Overloaded("x")) is not None
    assert budget.pause_after(Overloaded("x")) is not None
    assert budget.pause_after(Overloaded("x")) is None
