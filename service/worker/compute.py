"""Runs one batch on its engine, and contains what goes wrong: a failed batch fails none of its neighbours.

Out of memory: halves, and the cost model is told. Any other engine error: each request alone, once. A lost
device: the process ends, and the supervisor starts another.
"""

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.engines.base import DeviceLost, Engine, EngineError, EngineOutput, OutOfMemory
from models.views.base import View, ViewOutput
from service.errors import Internal, Overloaded, ServiceError
from service.worker.batcher import Batch
from service.worker.costs import CostModel
from service.worker.request import Request

EXIT_DEVICE_LOST = 70  # EX_SOFTWARE: any non-zero status makes the supervisor start another

log = logging.getLogger("worker")

Entries = list[tuple[Request, int]]


@dataclass(slots=True)
class Outcome:
    """What became of a batch: requests whose look is complete, and requests that failed with why."""

    complete: list[Request] = field(default_factory=list)
    failed: list[tuple[Request, ServiceError]] = field(default_factory=list)
    ms: float = 0.0


class Computer:
    """`engines` and `costs` by precision. Several lanes may use it at once."""

    def __init__(self, engines: Mapping[str, Engine], costs: Mapping[str, CostModel]) -> None:
        self._engines = engines
        self._costs = costs
        self._counting = threading.Lock()  # the parts of one look may run on two lanes at once

    def run(self, batch: Batch) -> Outcome:
        """Compute a batch and hand its outputs to its requests."""
        outcome = Outcome()
        requests = list({id(request): request for request, _ in batch.entries}.values())
        started = time.monotonic()
        with self._counting:
            for request in requests:
                request.start_batch(started)
        try:
            self._infer(batch, batch.entries, outcome)
            ms = (time.monotonic() - started) * 1000
            self._costs[batch.precision].observe(batch.shape, len(batch.entries), batch.threads, ms)
        except DeviceLost:
            _end_process()
        except EngineError as err:
            log.error("a batch failed", exc_info=err, extra={"fields": {"views": len(batch.entries)}})
            self._run_alone(batch, outcome)
        ended = time.monotonic()
        outcome.ms = (ended - started) * 1000
        with self._counting:
            for request in requests:
                request.end_batch(ended)
        return outcome

    def _infer(self, batch: Batch, entries: Entries, outcome: Outcome) -> None:
        views = [request.look.views[index] for request, index in entries if request.look is not None]
        try:
            output = self._engines[batch.precision].infer(
                _stack(views), features=batch.wants_features, threads=batch.threads
            )
        except OutOfMemory:
            if len(entries) == 1:
                raise
            self._costs[batch.precision].refuse(batch.shape, len(entries))
            log.warning("out of memory: batch halved", extra={"fields": {"views": len(entries)}})
            half = len(entries) // 2
            self._infer(batch, entries[:half], outcome)
            self._infer(batch, entries[half:], outcome)
            return
        self._hand_out(entries, output, outcome)

    def _hand_out(self, entries: Entries, output: EngineOutput, outcome: Outcome) -> None:
        features = output.features
        with self._counting:
            for row, (request, index) in enumerate(entries):
                wants = request.look is not None and request.look.features
                kept = features[row] if wants and features is not None else None
                members = None if output.members is None else output.members[row]
                request.outputs[index] = ViewOutput(output.logits[row], kept, members)
                request.missing -= 1
                if request.missing == 0:
                    outcome.complete.append(request)

    def _run_alone(self, batch: Batch, outcome: Outcome) -> None:
        alone: dict[int, Entries] = {}
        for request, index in batch.entries:
            if request.outputs[index] is None:
                alone.setdefault(id(request), []).append((request, index))
        for entries in alone.values():
            request = entries[0][0]
            try:
                self._infer(batch, entries, outcome)
            except OutOfMemory:
                detail = "the device has no memory for this image now"
                outcome.failed.append((request, Overloaded(detail, retry_after_s=1.0)))
            except DeviceLost:
                _end_process()
            except EngineError:
                log.exception("an image failed alone", extra={"fields": {"id": request.message.request_id}})
                outcome.failed.append((request, Internal("the image could not be computed")))


def _end_process() -> None:
    log.critical("device lost; this worker ends", exc_info=True)
    os._exit(EXIT_DEVICE_LOST)


def _stack(views: Sequence[View]) -> NDArray[np.uint8]:
    if len(views) == 1:
        return np.ascontiguousarray(views[0][None])  # [1, H, W, 3]
    return np.stack(views)  # [N, H, W, 3]
