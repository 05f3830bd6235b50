"""One image on its way through the Classifier, and what most of them have in common."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from models.card import ModelCard
from service.access.gate import Gate
from service.answers import read_map, read_predictions, read_timings
from service.errors import BadRequest, ServiceError
from service.fairness import FairLine, Share
from service.links import Outcome, WorkerLink
from service.messages import Result, ServedModel
from service.types import Classification, ClassifyOptions, ClassifyRequest, ModelRef, TtaUse

Landing = Classification | ServiceError  # how an image of several ends, where one alone would raise
Landings = list[tuple[int, Landing]]  # by the place among them
Land = Callable[[Landing], None]

# Images of a batch that travel together, cheap ones many: a frame and a wake-up cost what three of 1 kB do.
FEWEST_TOGETHER, MOST_TOGETHER = 4, 64


@dataclass(slots=True, eq=False)
class Flight:
    """One image on its way: what was asked, what is used, and whether a decoder died of it, maybe.

    It is with a worker (`link`, under `id`) or with a coroutine (`task`), and may have to leave a `line`.
    `land` is told once how it ended, unless it was cancelled; `on_outcome` judges what a worker made of it.
    """

    request: ClassifyRequest
    model: ServedModel
    options: ClassifyOptions
    asked: str
    arrived: float
    land: Land
    on_outcome: Callable[["Flight", Outcome], None]
    is_suspect: bool = False
    due: float | None = None
    link: WorkerLink | None = None
    id: int = 0
    task: asyncio.Task[None] | None = None
    line: FairLine | None = None

    def settle(self, id: int, outcome: Outcome) -> None:
        """See links.Waiter."""
        self.on_outcome(self, outcome)

    def end(self, landing: Landing) -> None:
        """It has landed."""
        self.task = None
        self._leave_line()
        self.land(landing)

    def cancel(self) -> None:
        """Nobody waits for it any more; `land` is not called."""
        link, task, self.link, self.task = self.link, self.task, None, None
        if task is not None:
            task.cancel()
        elif link is not None:
            link.cancel(self.id)
        self._leave_line()

    def _leave_line(self) -> None:
        if self.line is not None:
            self.line.leave()
            self.line = None

    def weigh(self, gate: Gate, link: WorkerLink) -> Share:
        """What it takes of its key's share of the workers."""
        caller, tta = self.request.caller, self.options.tta or self.asked
        return Share(caller, gate.weigh(caller), link.cost_ms.get(tta) or link.cost_ms.get("center", 1.0))


def read_classification(
    flight: Flight, message: Result, png: bytes, labels: tuple[str, ...]
) -> Classification:
    """The answer to `flight` as a worker gave it; `png` is the frame's payload."""
    model = flight.model
    return Classification(
        request_id=flight.request.request_id,
        model=_refer(model.name, model.version, model.digest),
        predictions=read_predictions(message, labels),
        tta=_use(flight.asked, message.tta_used, message.views),
        timings_ms=read_timings(message, flight.arrived),
        logits=None if message.logits is None else tuple(message.logits),
        map=read_map(message, png),
    )


@lru_cache(maxsize=256)  # most answers say the same
def _refer(name: str, version: int, digest: str) -> ModelRef:
    return ModelRef(name, version, digest)


@lru_cache(maxsize=256)
def _use(asked: str, used: str, views: int) -> TtaUse:
    return TtaUse(asked, used, views)


@lru_cache(maxsize=256)  # most callers ask the same
def use_policy(options: ClassifyOptions, tta: str) -> ClassifyOptions:
    """Options with that policy."""
    return replace(options, tta=tta)


def count_together(link: WorkerLink | None, tta: str, slice_ms: float) -> int:
    """How many images of that policy keep the worker there busy for about `slice_ms`."""
    image_ms = 0.0 if link is None else link.cost_ms.get(tta, 0.0)
    if image_ms <= 0.0:
        return FEWEST_TOGETHER
    return max(FEWEST_TOGETHER, min(MOST_TOGETHER, int(slice_ms / image_ms)))


def check_options(options: ClassifyOptions, model: ServedModel, card: ModelCard) -> None:
    """What can be refused without the image; the worker checks what depends on its policies."""
    if options.precision is not None and options.precision not in model.precisions:
        offered = ", ".join(model.precisions)
        raise BadRequest(f"{model.name} is not served in {options.precision}, only in {offered}", "precision")
    if options.map_class is not None and options.map_class >= len(card.labels):
        last = len(card.labels) - 1
        raise BadRequest(f"class is {options.map_class}, {model.name} has classes 0 to {last}", "class")
