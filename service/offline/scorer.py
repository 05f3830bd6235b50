"""Scores some images at a time on the calling thread, by the same pipeline and engine as a worker.

The images of one call go in step: every view they want next is cut, equal shapes share a batch, and each
policy is given its outputs, until all have their scores.
"""

import time
from collections.abc import Sequence
from typing import Any, cast

from models.views.base import Look
from service.errors import BrokenImage, ServiceError
from service.jobs.items import Line, describe_error, make_error_line
from service.jobs.reader import LoadedItem
from service.messages import Classify
from service.types import ClassifyOptions, Prediction
from service.worker.batcher import Batch
from service.worker.compute import Computer
from service.worker.pipeline import Answer
from service.worker.replies import rank_classes
from service.worker.request import Request
from service.worker.serving import LoadedModel

NOBODY = cast(Any, None)  # the connection of a request that came from no connection
BUDGET_MS = 200.0  # of one batch: nobody waits for its first image


class OfflineScorer:
    """One for all threads."""

    def __init__(self, model: LoadedModel, labels: Sequence[str], options: ClassifyOptions) -> None:
        self._model, self._labels, self._options = model, labels, options
        self._computer = Computer(model.engines, model.costs)

    def score(self, items: Sequence[LoadedItem]) -> list[Line]:
        """One line for each item, in their order."""
        answers: dict[int, Answer | ServiceError] = {}
        waiting: dict[int, Request] = {}
        for place, loaded in enumerate(items):
            begun = self._begin(loaded)
            if isinstance(begun, Request):
                waiting[place] = begun
            else:
                answers[place] = begun
        while waiting:
            failed = self._compute(list(waiting.values()))
            for place, request in list(waiting.items()):
                step = failed.get(id(request)) or self._model.pipeline.advance(request)
                if isinstance(step, Look):
                    request.expect(step)
                else:
                    answers[place] = step
                    del waiting[place]
        return [self._make_line(loaded, answers[place]) for place, loaded in enumerate(items)]

    def _begin(self, loaded: LoadedItem) -> Request | ServiceError:
        if not loaded.image:
            return BrokenImage("the image is empty")
        now = time.monotonic()
        message = Classify(loaded.index, "offline", now, self._options)
        request = Request(NOBODY, message, loaded.image, now)
        try:
            self._model.pipeline.inspect(request)
            request.expect(self._model.pipeline.decode(request, lambda *_: True))
        except ServiceError as error:
            return error
        return request

    def _compute(self, requests: list[Request]) -> dict[int, ServiceError]:
        """Every view of every look; failures by the id() of their request."""
        shares: dict[tuple[str, tuple[int, int]], list[tuple[Request, int]]] = {}
        for request in requests:
            assert request.look is not None
            for index, view in enumerate(request.look.views):
                shares.setdefault((request.precision, (view.shape[0], view.shape[1])), []).append(
                    (request, index)
                )
        failed: dict[int, ServiceError] = {}
        for (precision, shape), entries in shares.items():
            most = self._model.costs[precision].fit(shape, BUDGET_MS)
            for start in range(0, len(entries), most):
                batch = Batch(precision, shape, entries[start : start + most], 1, 0.0)
                outcome = self._computer.run(batch)
                failed.update({id(request): error for request, error in outcome.failed})
        return failed

    def _make_line(self, loaded: LoadedItem, answer: Answer | ServiceError) -> Line:
        if loaded.item.error is not None:
            return make_error_line(loaded.index, loaded.item, loaded.item.error)
        if isinstance(answer, ServiceError):
            return make_error_line(loaded.index, loaded.item, describe_error(answer))
        scores = answer.scores
        ranked = [
            Prediction(index, self._labels[index], float(scores.probabilities[index]))
            for index in rank_classes(scores.probabilities, self._options.top_k)
        ]
        logits = scores.logits.tolist() if self._options.wants_logits else None
        return Line(loaded.index, loaded.item.id, predictions=ranked, logits=logits)
