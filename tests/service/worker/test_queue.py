"""What a lane is told to do next. A queue of two lanes; nothing is computed."""

from collections.abc import Iterator

import pytest

from service.worker.backlog import Backlog
from service.worker.batcher import Batch, Shape
from service.worker.queue import TRY_OTHER, Decode, Expired, Limits, WorkQueue
from service.worker.request import Request
from tests.service.worker.parts import Line, make_costs, make_look

SHAPE = (32, 32)
MEGABYTE = 1_000_000


def make_queue(
    view_ms: float = 1.0, *, wide: float = 1.0, batches: int = 2, budget_ms: float = 50
) -> WorkQueue:
    costs = {"fp32": make_costs(view_ms, wide=wide)}
    backlog = Backlog({"center": view_ms}, "center", lanes=2)
    return WorkQueue(Limits(2, batches, budget_ms, 50.0, 10 * MEGABYTE), costs, backlog)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


def decode(queue: WorkQueue, *shapes: Shape, lane: int = 0) -> Request:
    """The lane takes a decode, which must be next, and ends it with views of `shapes`."""
    task = queue.take(lane)
    assert isinstance(task, Decode)
    [request] = task.requests
    assert queue.reserve(request, 100)
    request.tta = "center"
    queue.end_decodes(lane, [(request, make_look(*shapes))])
    return request


def take_batch(queue: WorkQueue, lane: int = 0) -> Batch:
    task = queue.take(lane)
    assert isinstance(task, Batch)
    return task


def is_waiting(queue: WorkQueue, lane: int) -> bool:
    """Whether nothing is there for that lane: a stopped queue answers None instead of waiting."""
    queue.stop()
    return queue.take(lane) is None


def test_lone_request_gets_every_core_if_that_is_faster(line: Line) -> None:
    queue = make_queue(wide=0.6)
    queue.add([line.ask()])
    decode(queue, SHAPE)
    assert take_batch(queue).threads == 2


def test_lone_request_stays_on_one_core_if_that_is_faster(line: Line) -> None:
    queue = make_queue(wide=1.2)
    queue.add([line.ask()])
    decode(queue, SHAPE)
    assert take_batch(queue).threads == 1


def test_way_that_looked_slow_at_warm_up_is_tried_again(line: Line) -> None:
    costs = make_costs(wide=1.5)
    queue = WorkQueue(Limits(2, 2, 50.0, 50.0, MEGABYTE), {"fp32": costs}, Backlog({}, "center", lanes=2))
    threads = []
    for _ in range(20 * TRY_OTHER):
        queue.add([line.ask()])
        request = decode(queue, SHAPE)
        batch = take_batch(queue)
        costs.observe(SHAPE, 1, batch.threads, 1.0 if batch.threads == 1 else 0.6)
        queue.end_batch(0, [], [request])
        threads.append(batch.threads)
    assert threads[: TRY_OTHER - 1] == [1] * (TRY_OTHER - 1)
    assert threads[-TRY_OTHER + 1 :].count(2) >= TRY_OTHER - 2


def test_two_requests_go_to_two_lanes(line: Line) -> None:
    queue = make_queue(wide=0.6)
    queue.add([line.ask(), line.ask()])
    decode(queue, SHAPE)
    decode(queue, SHAPE, lane=1)
    batches = [take_batch(queue), take_batch(queue, lane=1)]
    assert [(batch.threads, len(batch.entries)) for batch in batches] == [(1, 1), (1, 1)]


def test_everything_queued_is_decoded_before_a_batch_that_is_not_full(line: Line) -> None:
    queue = make_queue(view_ms=0.01)  # handling dominates: the more views the better
    queue.add([line.ask() for _ in range(5)])
    for _ in range(5):
        decode(queue, SHAPE)
    assert len(take_batch(queue).entries) == 3  # the other lane gets its half
    assert len(take_batch(queue, lane=1).entries) == 2


def test_full_batch_runs_before_the_next_decode(line: Line) -> None:
    queue = make_queue(view_ms=100.0)  # one view is full
    queue.add([line.ask(), line.ask()])
    decode(queue, SHAPE)
    assert len(take_batch(queue).entries) == 1


def test_batch_keeps_its_budget(line: Line) -> None:
    queue = make_queue(view_ms=0.01, budget_ms=0.1)
    queue.add([line.ask()])
    decode(queue, *[SHAPE] * 40)
    batch = take_batch(queue)
    assert batch.predicted_ms <= 0.1 + 0.2  # the handling of one batch is no view's
    assert len(batch.entries) < 40


def test_interactive_decode_goes_before_bulk_of_any_deadline(line: Line) -> None:
    queue = make_queue()
    bulk, interactive = line.ask(priority="bulk", deadline=1e8), line.ask()
    queue.add([bulk, interactive])
    assert queue.take(0) == Decode([interactive])


def test_small_bulk_images_are_decoded_some_in_a_turn_and_shared_among_lanes(line: Line) -> None:
    queue = make_queue()
    bulk = [line.ask(priority="bulk") for _ in range(8)]
    queue.add(bulk)
    first, other = queue.take(0), queue.take(1)
    assert isinstance(first, Decode)
    assert isinstance(other, Decode)
    assert 1 < len(first.requests) < len(bulk)  # the other lane gets some too
    assert first.requests + other.requests == bulk[: len(first.requests) + len(other.requests)]


def test_a_turn_ends_before_a_suspect_and_takes_no_interactive_image_along(line: Line) -> None:
    queue = make_queue()
    interactive = [line.ask(), line.ask()]
    queue.add([*interactive, line.ask(priority="bulk"), line.ask(priority="bulk", is_suspect=True)])
    suspect = queue.take(0)
    assert isinstance(suspect, Decode)
    assert [request.message.is_suspect for request in suspect.requests] == [True]
    queue.end_decodes(0, [(suspect.requests[0], None)])
    assert [queue.take(0), queue.take(1)] == [Decode([one]) for one in interactive]


def test_large_bulk_images_are_decoded_one_in_a_turn(line: Line) -> None:
    queue = make_queue()
    bulk = [line.ask(bytes(100_000), priority="bulk") for _ in range(4)]
    queue.add(bulk)
    assert queue.take(0) == Decode(bulk[:1])


def test_interactive_batch_goes_before_bulk_decode(line: Line) -> None:
    queue = make_queue(view_ms=0.01)
    queue.add([line.ask()])
    interactive = decode(queue, SHAPE)
    queue.add([line.ask(priority="bulk", deadline=1e8)])
    assert take_batch(queue).entries == [(interactive, 0)]


def test_expired_request_is_answered_instead_of_decoded(line: Line) -> None:
    queue = make_queue()
    late = line.ask(deadline=1.0)
    queue.add([late])
    assert queue.take(0) == Expired([late])


def test_cancelled_request_is_never_decoded(line: Line) -> None:
    queue = make_queue()
    gone = line.ask()
    queue.add([gone])
    line.cancel(gone)
    queue.forget([gone])
    assert is_waiting(queue, 0)


def test_suspect_is_decoded_alone(line: Line) -> None:
    queue = make_queue()
    first, suspect, last = line.ask(), line.ask(is_suspect=True), line.ask()
    queue.add([first])
    assert queue.take(0) == Decode([first])
    queue.add([suspect, last])
    queue.end_decodes(0, [(first, None)])
    assert queue.take(0) == Decode([suspect])
    assert is_waiting(queue, 1)
    queue.end_decodes(0, [(suspect, None)])
    assert queue.take(1) == Decode([last])


def test_decode_waits_for_memory_that_another_holds(line: Line) -> None:
    queue = make_queue()
    large, other = line.ask(), line.ask()
    queue.add([large, other])
    assert queue.take(0) == Decode([large])
    assert queue.reserve(large, 8 * MEGABYTE)
    assert queue.take(1) == Decode([other])
    assert not queue.reserve(other, 8 * MEGABYTE)
    assert is_waiting(queue, 1)
    queue.end_decodes(0, [(large, None)])
    assert queue.take(1) == Decode([other])
    assert queue.reserve(other, 8 * MEGABYTE)


def test_image_larger_than_the_memory_budget_is_decoded_alone(line: Line) -> None:
    queue = make_queue()
    huge = line.ask()
    queue.add([huge])
    assert queue.take(0) == Decode([huge])
    assert queue.reserve(huge, 11 * MEGABYTE)


def test_cancelled_between_two_looks_leaves_no_wait_behind(line: Line) -> None:
    queue = make_queue()
    queue.add([line.ask(tta="adaptive")])
    request = decode(queue, SHAPE)
    take_batch(queue)
    line.cancel(request)
    queue.forget([request])
    queue.end_batch(0, [(request, make_look(SHAPE))], [])
    assert queue.wait_ms() == 0


def test_cancelled_while_decoded_gives_its_memory_back(line: Line) -> None:
    queue = make_queue()
    gone, next_one = line.ask(), line.ask()
    queue.add([gone, next_one])
    assert queue.take(0) == Decode([gone])
    assert queue.reserve(gone, 8 * MEGABYTE)
    line.cancel(gone)
    queue.forget([gone])
    assert queue.take(1) == Decode([next_one])
    assert not queue.reserve(next_one, 8 * MEGABYTE)  # the decode is still going on
    queue.end_decodes(0, [(gone, make_look(SHAPE))])
    assert queue.take(1) == Decode([next_one])
    assert queue.reserve(next_one, 8 * MEGABYTE)


def test_gpu_runs_one_batch_at_a_time_and_takes_all_of_it(line: Line) -> None:
    queue = make_queue(view_ms=0.01, batches=1)
    queue.add([line.ask() for _ in range(4)])
    for _ in range(4):
        decode(queue, SHAPE)
    assert len(take_batch(queue).entries) == 4
    queue.add([line.ask()])
    decode(queue, SHAPE, lane=1)
    assert is_waiting(queue, 1)


def test_predicted_wait_rises_with_work_and_falls_to_nothing(line: Line) -> None:
    queue = make_queue(view_ms=10.0)
    assert queue.wait_ms() == 0.0
    requests = [line.ask() for _ in range(8)]
    queue.add(requests)
    assert queue.wait_ms() == pytest.approx(8 * 10.0 / 2, rel=0.1)
    for request in requests:
        line.cancel(request)
    queue.forget(requests)
    assert queue.wait_ms() == 0.0


def test_bulk_work_does_not_make_interactive_callers_wait(line: Line) -> None:
    queue = make_queue(view_ms=10.0)
    queue.add([line.ask(priority="bulk") for _ in range(8)])
    assert queue.wait_ms() == 0.0


def test_predicted_wait_is_nothing_once_all_is_taken(line: Line) -> None:
    queue = make_queue(view_ms=0.1)
    queue.add([line.ask() for _ in range(7)])
    for _ in range(7):
        decode(queue, SHAPE, SHAPE, SHAPE)
    left = 21
    while left:
        left -= len(take_batch(queue).entries)
        queue.end_batch(0, [], [])
    assert queue.wait_ms() == 0.0


def test_cost_learnt_of_a_policy_counts_its_second_look(line: Line) -> None:
    queue = make_queue(view_ms=10.0)
    queue.add([line.ask()])
    request = decode(queue, SHAPE)
    take_batch(queue)
    queue.end_batch(0, [(request, make_look(*[SHAPE] * 10))], [])
    while request.backlog_ms:
        take_batch(queue)
        queue.end_batch(0, [], [])
    queue.end_batch(0, [], [request])
    queue.add([line.ask()])
    learnt_ms = 10.0 + 0.1 * (110.0 - 10.0)  # a tenth of the way to eleven views
    assert queue.wait_ms() == pytest.approx(learnt_ms / 2, rel=0.1)
