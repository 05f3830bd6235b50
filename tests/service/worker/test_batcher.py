"""Buckets: what shares a batch, who goes first, what is dropped before it reaches an engine."""

from collections.abc import Iterator

import pytest

from service.types import Priority
from service.worker.batcher import Batcher, Shape
from service.worker.request import Request
from tests.service.worker.parts import Line, make_look

SMALL, LARGE = (32, 32), (40, 40)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


def queue(batcher: Batcher, request: Request, *shapes: Shape) -> Request:
    request.expect(make_look(*shapes))
    batcher.add(request)
    return request


def take(batcher: Batcher, most: int = 64, most_bulk: int = 64) -> list[tuple[Request, int]]:
    bucket = batcher.first()
    assert bucket is not None
    return batcher.take(bucket, most, most_bulk)


def test_views_of_one_shape_share_a_batch_whoever_sent_them(line: Line) -> None:
    batcher = Batcher()
    one = queue(batcher, line.ask(deadline=1), SMALL)
    ten = queue(batcher, line.ask(deadline=2), *[SMALL] * 10)
    assert take(batcher) == [(one, 0), *((ten, index) for index in range(10))]
    assert not batcher


def test_views_of_other_shapes_wait_for_their_own_batch(line: Line) -> None:
    batcher = Batcher()
    both = queue(batcher, line.ask(), SMALL, LARGE, SMALL)
    batches = [take(batcher), take(batcher)]
    assert sorted(batches, key=len) == [[(both, 1)], [(both, 0), (both, 2)]]


def test_earliest_deadline_goes_first(line: Line) -> None:
    batcher = Batcher()
    late = queue(batcher, line.ask(deadline=20), SMALL)
    early = queue(batcher, line.ask(deadline=10), LARGE)
    assert take(batcher) == [(early, 0)]
    assert take(batcher) == [(late, 0)]


def test_look_larger_than_a_batch_is_computed_in_parts(line: Line) -> None:
    batcher = Batcher()
    ten = queue(batcher, line.ask(), *[SMALL] * 10)
    parts = [take(batcher, most=4) for _ in range(3)]
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [index for part in parts for _, index in part] == list(range(10))
    assert ten.missing == 10


@pytest.mark.parametrize(
    ("first", "second"),
    [pytest.param("interactive", "bulk", id="in order"), pytest.param("bulk", "interactive", id="reversed")],
)
def test_interactive_goes_before_bulk_of_any_deadline(line: Line, first: Priority, second: Priority) -> None:
    batcher = Batcher()
    deadlines = {"interactive": 20.0, "bulk": 10.0}
    for priority in (first, second):
        queue(batcher, line.ask(priority=priority, deadline=deadlines[priority]), SMALL)
    assert [request.message.options.priority for request, _ in take(batcher)] == ["interactive", "bulk"]


def test_bulk_fills_only_the_room_it_may(line: Line) -> None:
    batcher = Batcher()
    for _ in range(5):
        queue(batcher, line.ask(priority="bulk"), SMALL)
    queue(batcher, line.ask(), SMALL)
    assert len(take(batcher, most=8, most_bulk=3)) == 4


def test_cancelled_request_is_left_out(line: Line) -> None:
    batcher = Batcher()
    gone = queue(batcher, line.ask(deadline=1), *[SMALL] * 3)
    stays = queue(batcher, line.ask(deadline=2), SMALL)
    line.cancel(gone)
    assert take(batcher) == [(stays, 0)]


def test_expired_request_is_dropped_and_reported_once(line: Line) -> None:
    batcher = Batcher()
    late = queue(batcher, line.ask(deadline=5), SMALL, LARGE)
    stays = queue(batcher, line.ask(deadline=50), SMALL)
    assert batcher.drop_dead(now=10) == [late]
    assert take(batcher) == [(stays, 0)]
    assert not batcher
