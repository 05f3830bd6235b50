"""The compute threads: each takes one task after another from the queue and sends the answers itself."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from models.views.base import Look
from service.board import Board, Stage
from service.errors import DeadlinePassed, Internal, ServiceError
from service.worker.batcher import Batch
from service.worker.compute import Computer
from service.worker.connection import Connection
from service.worker.intake import Intake
from service.worker.pipeline import Pipeline
from service.worker.queue import Decode, Task, WorkQueue
from service.worker.replies import Reply, encode_replies
from service.worker.request import Request

# Work with a far deadline (bulk) must still be seen to be stuck: no stage takes this long,
LONGEST_STAGE_S = 30.0
SLACK = 10.0  # nor does a batch take this many times what was predicted.

log = logging.getLogger("worker")


class BatchCounter(Protocol):
    """Where batches are counted: service.metrics.BatchMetrics."""

    def count_batch(self, views: int, compute_s: float) -> None:
        """One batch of `views` views took `compute_s` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all lanes of a worker share."""

    queue: WorkQueue
    pipeline: Pipeline
    computer: Computer
    board: Board
    metrics: BatchCounter
    intake: Intake


class Lane(threading.Thread):
    """One compute thread; `index` is its entry on the board."""

    def __init__(self, index: int, shop: Workshop) -> None:
        super().__init__(name=f"lane-{index}", daemon=True)
        self.answers = 0
        self._index = index
        self._shop = shop

    def run(self) -> None:
        """Work until the queue is stopped. Nothing that goes wrong with one task ends the lane."""
        queue, intake = self._shop.queue, self._shop.intake
        task: Task | None = None
        while True:
            while task is None:
                intake.read()
                task = queue.take(self._index)
                if task is None:
                    if queue.is_stopping:
                        intake.wake()  # the next lane that waits ends too
                        return
                    intake.wait()
            if isinstance(task, Decode):
                task = self._decode(task.requests)
                continue
            if isinstance(task, Batch):
                self._compute(task)
            else:
                queue.forget(task.requests)
                self._reply([(request, _deadline_passed()) for request in task.requests])
            task = None

    def _decode(self, requests: Sequence[Request]) -> Task | None:
        """The next task, if it is known already."""
        ended: list[tuple[Request, Look | None]] = []
        refusals: list[Reply] = []
        for request in requests:
            self._decode_one(request, ended, refusals)
        self._shop.intake.read()
        task = self._shop.queue.end_decodes_and_take(self._index, ended)
        if refusals:
            self._reply(refusals)
        return task

    def _decode_one(
        self, request: Request, ended: list[tuple[Request, Look | None]], refusals: list[Reply]
    ) -> None:
        shop, message = self._shop, request.message
        started = time.monotonic()
        deadline = min(message.deadline, started + LONGEST_STAGE_S)
        shop.board.enter(self._index, Stage.DECODE, request.connection.slot, message.id, deadline)
        look: Look | None = None
        error: ServiceError | None = None
        try:
            if not shop.queue.reserve(request, shop.pipeline.inspect(request)):
                return
            look = shop.pipeline.decode(request, shop.queue.has_time)
        except ServiceError as refusal:
            error = refusal
        except Exception:
            log.exception("decoding failed", extra={"fields": {"request_id": message.request_id}})
            error = Internal("the image could not be prepared")
        finally:
            shop.board.leave(self._index)
        request.decode_ms = (time.monotonic() - started) * 1000
        ended.append((request, look))
        if error is not None:
            refusals.append((request, error))

    def _compute(self, batch: Batch) -> None:
        shop = self._shop
        again: list[tuple[Request, Look]] = []
        replies: list[Reply] = []
        compute_s: float | None = None
        self._enter_batch(batch)
        try:
            outcome = shop.computer.run(batch)
            replies.extend(outcome.failed)
            compute_s = outcome.ms / 1000
            for request in outcome.complete:
                self._advance(request, again, replies)
        except Exception:
            log.exception("a batch was lost", extra={"fields": {"views": len(batch.entries)}})
            lost = {id(request): request for request, _ in batch.entries}
            replies = [(request, Internal("the image could not be computed")) for request in lost.values()]
        finally:
            shop.board.leave(self._index)
        self._reply(replies, is_over=False)  # before the books are kept: somebody waits
        shop.queue.end_batch(self._index, again, [request for request, _ in replies])
        if compute_s is not None:
            shop.metrics.count_batch(len(batch.entries), compute_s)

    def _enter_batch(self, batch: Batch) -> None:
        now = time.monotonic()
        request = batch.entries[0][0]
        patience_s = SLACK * batch.predicted_ms / 1000
        deadline = max(now + patience_s, min(request.deadline, now + LONGEST_STAGE_S))
        slot, id = request.connection.slot, request.message.id
        self._shop.board.enter(self._index, Stage.INFER, slot, id, deadline)

    def _advance(self, request: Request, again: list[tuple[Request, Look]], replies: list[Reply]) -> None:
        if not request.is_open:
            replies.append((request, _deadline_passed()))  # goes nowhere, and frees what it held
            return
        try:
            step = self._shop.pipeline.advance(request)
        except Exception:
            log.exception("merging failed", extra={"fields": {"request_id": request.message.request_id}})
            replies.append((request, Internal("the scores could not be merged")))
            return
        if isinstance(step, Look):
            again.append((request, step))
        else:
            replies.append((request, step))

    def _reply(self, replies: Sequence[Reply], *, is_over: bool = True) -> None:
        """Answer each request that still waits; one write for all of a frontend's.

        `is_over`: the queue knows that what this lane did is done.
        """
        seen = {request.connection: request.connection.seen for request, _ in replies}  # before the wait
        wait_ms = self._shop.queue.wait_ms(None if is_over else self._index)
        told: dict[Connection, list[Reply]] = {}
        for request, answer in replies:
            if request.connection.requests.pop(request.message.id, None) is None:
                continue
            told.setdefault(request.connection, []).append((request, answer))
            self.answers += 1
        for connection, parts in told.items():
            connection.send(encode_replies(parts, wait_ms, seen[connection]), wait_ms)


def _deadline_passed() -> DeadlinePassed:
    return DeadlinePassed("the deadline passed before the image was classified")
