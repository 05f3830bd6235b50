"""The worker's queue: what each lane does next. One lock, held for microseconds, never around real work.

Work-conserving: a lane never waits while there is something to do, and never for a timer; who finds nothing
waits where work comes in (intake.py), and is woken when other lanes leave some. Batches form from
what has piled up while the lanes were busy, which is exactly when they pay. What is alone in the worker is
spread over every core if the measured costs say that this is faster; otherwise each lane runs its own batch.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from models.views.base import Look, ViewShape
from service.worker.backlog import Backlog
from service.worker.batcher import Batch, Batcher, Bucket
from service.worker.costs import CostModel
from service.worker.decodes import DecodeQueue
from service.worker.request import Request

# One lone batch in so many is computed the way that is predicted to be slower, and so measured: other
# programs at warm-up may have made it look slow, and what is never taken would never look better. Each such
# batch moves the prediction by SMOOTHING (costs.py), so that a way which looked twice too slow is found in
# seconds.
TRY_OTHER = 32
# So long are bulk images decoded in one turn of a lane, as a turn has costs of its own: 15 microseconds, a
# tenth of an image of 1 kB. What is interactive waits for the turn's end: it is short beside a bulk slice.
TURN_MS = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one worker. `batches`: how many may run at once, one per lane on a CPU, one on a GPU."""

    lanes: int
    batches: int
    batch_budget_ms: float
    bulk_slice_ms: float
    max_decode_bytes: int


@dataclass(frozen=True, slots=True)
class Decode:
    """A task: decode these images and cut their first views; several only of bulk priority."""

    requests: list[Request]


@dataclass(frozen=True, slots=True)
class Expired:
    """A task: tell these callers that their deadline has passed."""

    requests: list[Request]


Task = Decode | Batch | Expired


class WorkQueue:
    """Thread-safe. Lanes add what they read, take tasks and report their ends; `wake` calls an idle one."""

    def __init__(self, limits: Limits, costs: dict[str, CostModel], backlog: Backlog) -> None:
        """`costs` by precision."""
        self._limits = limits
        self._costs = costs
        self._backlog = backlog
        self._decodes = DecodeQueue(limits.max_decode_bytes)
        self._batcher = Batcher()
        self._lock = threading.Lock()
        self.wake: Callable[[], None] = lambda: None  # whoever makes the lanes' place to wait puts it here
        self._idle: set[int] = set()  # lanes that found nothing
        self._batches = 0
        self._lone_batches = 0
        self.is_stopping = False

    def wait_ms(self, free_lane: int | None = None) -> float:
        """The predicted wait of an interactive request that arrives now; `free_lane` has nothing to do."""
        return self._backlog.wait_ms(time.monotonic(), free_lane)

    def has_time(self, request: Request, shapes: tuple[ViewShape, ...]) -> bool:
        """Whether views of these shapes, queued now, would be computed before the request's deadline."""
        costs = self._costs[request.precision]
        view_ms = sum(shape.count * costs.view_ms((shape.height, shape.width)) for shape in shapes)
        return time.monotonic() + (self.wait_ms() + view_ms) / 1000 < request.deadline

    def add(self, requests: Sequence[Request]) -> None:
        """Accept requests. The lane that read them takes first, and wakes another for what it leaves."""
        with self._lock:
            for request in requests:
                self._backlog.arrive(request)
                self._decodes.add(request)

    def take(self, lane: int) -> Task | None:
        """The next task for `lane`; None where there is nothing, and then it is woken when there may be."""
        with self._lock:
            return self._take(lane)

    def reserve(self, request: Request, size_bytes: int) -> bool:
        """Room for decoding an image; False: it went back into the queue."""
        with self._lock:
            if self._decodes.reserve(request, size_bytes):
                return True
            self._decodes.end(request)
            self._decodes.add(request)
            return False

    def end_decodes(self, lane: int, ended: Iterable[tuple[Request, Look | None]]) -> None:
        """A Decode is over; with each image its first views, None if it failed and is being answered."""
        with self._lock:
            self._end_decodes(lane, ended)

    def end_decodes_and_take(self, lane: int, ended: Iterable[tuple[Request, Look | None]]) -> Task | None:
        """Both under one lock: an image that is alone goes on at once."""
        with self._lock:
            self._end_decodes(lane, ended)
            return self._take(lane)

    def end_batch(self, lane: int, again: Iterable[tuple[Request, Look]], done: Iterable[Request]) -> None:
        """A batch is over: `again` want another look, `done` are about to be answered."""
        with self._lock:
            self._batches -= 1
            self._backlog.end(lane)
            for request in done:
                self._backlog.learn_policy(request.tta, request.looks_ms)  # a second look counts too
                self._forget(request)
            for request, look in again:
                if request.is_open:
                    self._add_look(request, look)
                else:  # given up meanwhile: what is charged now would never be taken back
                    self._forget(request)

    def forget(self, requests: Iterable[Request]) -> None:
        """These are answered, or nobody waits for them; what they held is free once no lane works on it."""
        with self._lock:
            for request in requests:
                self._forget(request)
            self._wake_idle()

    def stop(self) -> None:
        """Let every lane end once nothing is left to do."""
        self.is_stopping = True
        self.wake()

    def _end_decodes(self, lane: int, ended: Iterable[tuple[Request, Look | None]]) -> None:
        self._backlog.end(lane)
        for request, look in ended:
            self._decodes.end(request)
            self._backlog.learn_decode(request)
            if look is None or not request.is_open:
                self._forget(request)
                continue
            self._decodes.keep(request)
            self._add_look(request, look)

    def _take(self, lane: int) -> Task | None:
        self._idle.discard(lane)
        task = self._choose(lane)
        if task is None:
            self._idle.add(lane)
        else:
            self._wake_idle()
        return task

    def _forget(self, request: Request) -> None:
        self._backlog.forget(request)
        if not request.is_decoding:
            self._decodes.release(request)

    def _add_look(self, request: Request, look: Look) -> None:
        request.expect(look)
        costs = self._costs[request.precision]
        cost_ms = sum(costs.view_ms((view.shape[0], view.shape[1])) for view in look.views)
        request.looks_ms += cost_ms
        self._backlog.charge(request, cost_ms)
        self._batcher.add(request)

    def _wake_idle(self) -> None:
        if self._idle and (self._decodes or self._batcher):
            self.wake()

    def _choose(self, lane: int) -> Task | None:
        now = time.monotonic()
        expired = self._decodes.drop_dead(now) + self._batcher.drop_dead(now)
        if expired:
            return Expired(expired)
        request = self._decodes.first()
        bucket = self._batcher.first() if self._batches < self._limits.batches else None
        if bucket is not None and (request is None or self._goes_before(bucket, request)):
            return self._start_batch(lane, bucket, now)
        return None if request is None else self._start_decodes(lane, request, now)

    def _goes_before(self, bucket: Bucket, request: Request) -> bool:
        """Whether a batch should run before the next image is decoded."""
        is_bulk, due = bucket.urgency()
        if is_bulk != request.is_bulk:
            return request.is_bulk
        full = self._find_full(self._costs[bucket.key[0]], bucket.key[1])
        return bucket.views >= full and due <= request.due

    def _start_decodes(self, lane: int, first: Request, now: float) -> Decode:
        requests, turn_ms = [first], self._backlog.predict_decode_ms(first)
        self._decodes.start(first)
        most = -(-len(self._decodes) // self._limits.lanes) if first.is_bulk else 1
        while len(requests) < most and not first.message.is_suspect:
            request = self._decodes.first()
            if request is None or request.message.is_suspect:
                break
            decode_ms = self._backlog.predict_decode_ms(request)
            if turn_ms + decode_ms > TURN_MS:
                break
            self._decodes.start(request)
            requests.append(request)
            turn_ms += decode_ms
        self._backlog.start(lane, now, turn_ms)
        return Decode(requests)

    def _start_batch(self, lane: int, bucket: Bucket, now: float) -> Batch | Expired:
        precision, shape = bucket.key
        costs = self._costs[precision]
        most, threads = self._size(costs, bucket)
        entries = self._batcher.take(bucket, most, costs.fit(shape, self._limits.bulk_slice_ms))
        if not entries:  # everything in the bucket had been cancelled
            return Expired([])
        predicted_ms = costs.predict(shape, len(entries), threads)
        view_ms = costs.view_ms(shape)
        for request, _ in entries:
            self._backlog.settle(request, view_ms)
        self._batches += 1
        self._backlog.start(lane, now, predicted_ms)
        return Batch(precision, shape, entries, threads, predicted_ms)

    def _size(self, costs: CostModel, bucket: Bucket) -> tuple[int, int]:
        """How many views a batch of `bucket` may take, and on how many threads it runs.

        Idle lanes get their share of what there is, so that one lane does not run all of it while another
        waits. Work that is alone goes on every core at once where that is predicted to end sooner; now and
        then the other way, since a way that is never taken is never measured again.
        """
        limits, shape = self._limits, bucket.key[1]
        full = self._find_full(costs, shape)
        if self._batcher.buckets > 1 or limits.batches == 1:
            return full, 1
        if not bucket.interactive and self._decodes:  # idle lanes have images to decode
            return full, 1
        free = limits.batches - self._batches
        share = min(full, -(-bucket.views // free))
        is_alone = free == limits.batches and not self._decodes and not self._decodes.running
        if is_alone and bucket.views <= full * limits.lanes:
            self._lone_batches += 1
            wide_ms = costs.predict(shape, bucket.views, limits.lanes)
            is_wide = wide_ms < costs.predict(shape, share)
            if is_wide != (self._lone_batches % TRY_OTHER == 0):
                return bucket.views, limits.lanes
        return share, 1

    def _find_full(self, costs: CostModel, shape: tuple[int, int]) -> int:
        """Views beyond which a batch gets no cheaper per view, or takes longer than a batch may."""
        return min(costs.full_views(shape), costs.fit(shape, self._limits.batch_budget_ms))
