"""The client tries again what may pass later, as late as the server asks, and never past the deadline."""

import time
from email.utils import formatdate

import pytest

from service.client.http import read_retry_after_s
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


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("7", 7.0, 7.0),
        ("0", 0.0, 0.0),
        (formatdate(0), 0.0, 0.0),
        (formatdate(time.time() + 3600), 1.0, 3600.0),
    ],
    ids=["seconds", "none", "a date that has passed", "a date to come"],
)
def test_retry_after_is_seconds_or_a_date(text: str, least: float, most: float) -> None:
    pause_s = read_retry_after_s(text)
    assert pause_s is not None
    assert least <= pause_s <= most


@pytest.mark.parametrize("text", ["", "soon", "-1", "\u00b2", "1e3"])
def test_a_retry_after_that_says_nothing_is_none(text: str) -> None:
    assert read_retry_after_s(text) is None
