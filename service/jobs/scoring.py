"""Scores the items of a batch through the Classifier: many at once, patiently, one line each, in order."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from service.errors import (
    BrokenImage,
    DeadlinePassed,
    Internal,
    NoWorker,
    Overloaded,
    ServiceError,
    UnknownModel,
)
from service.jobs.items import Line, describe_error, make_error_line, make_line
from service.jobs.reader import LoadedItem, read_items
from service.jobs.sources import Source
from service.jobs.window import Window, WindowLimits
from service.types import Classification, ClassifyOptions, ClassifyRequest

# What may pass by itself. A batch has no deadline of its own, so it waits; interactive work goes first.
TRANSIENT = (Overloaded, NoWorker, UnknownModel)
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.05, 5.0
TRIES = 3  # of an image that ends in DeadlinePassed or Internal: maybe it is the image, maybe it is not

log = logging.getLogger(__name__)

Classify = Callable[[ClassifyRequest], Awaitable[Classification]]


@dataclass(frozen=True, slots=True)
class ScoringRules:
    """`name` begins the request ids; `image_timeout_s` is one try's deadline.

    `patience_s`: how long what is transient may last before it becomes an image's error; a durable job has
    no end of patience.
    """

    name: str
    options: ClassifyOptions
    image_timeout_s: float
    patience_s: float
    max_image_bytes: int
    caller: str = ""


class Scorer:
    """`is_waiting`: what the service lacks right now, "" while answers come."""

    def __init__(self, classify: Classify, rules: ScoringRules, source: Source | None = None) -> None:
        self._classify, self._rules, self._source = classify, rules, source
        self.is_waiting = ""

    def open_window(
        self, folder: Path, first: int = 0, limits: WindowLimits | None = None
    ) -> Window[LoadedItem, Line]:
        """The lines of a spooled batch from item `first` on, in order; use it with `async with`."""
        items = read_items(folder, first)
        return Window(items, self.score, lambda loaded: len(loaded.image), limits or WindowLimits())

    async def score(self, loaded: LoadedItem) -> Line:
        """The line of one item; raises Draining, and nothing else of ServiceError."""
        index, item = loaded.index, loaded.item
        if item.error is not None:
            return make_error_line(index, item, item.error)
        try:
            image = loaded.image or await self._read(item.source)
            return make_line(index, item, await self._classify_patiently(index, image))
        except TRANSIENT as error:
            return make_error_line(index, item, describe_error(error))
        except ServiceError as error:
            if error.slug == "draining":
                raise
            return make_error_line(index, item, describe_error(error))

    async def _read(self, source_name: str) -> bytes:
        if self._source is None or not source_name:
            raise BrokenImage("the image is empty")
        for _ in range(TRIES - 1):
            try:
                return await asyncio.to_thread(self._source.read, source_name, self._rules.max_image_bytes)
            except Internal:
                await asyncio.sleep(1.0)
        return await asyncio.to_thread(self._source.read, source_name, self._rules.max_image_bytes)

    async def _classify_patiently(self, index: int, image: bytes) -> Classification:
        gives_up = time.monotonic() + self._rules.patience_s
        wait_s, tries = SHORTEST_WAIT_S, 0
        while True:
            try:
                answer = await self._classify(self._make_request(index, image))
                self.is_waiting = ""
                return answer
            except TRANSIENT as error:
                if time.monotonic() > gives_up:
                    raise
                self.is_waiting = error.detail
                wait_s = min(LONGEST_WAIT_S, max(wait_s * 2, error.retry_after_s or 0.0))
                await asyncio.sleep(wait_s)
            except (DeadlinePassed, Internal):
                tries += 1
                if tries >= TRIES:
                    raise

    def _make_request(self, index: int, image: bytes) -> ClassifyRequest:
        rules = self._rules
        deadline = time.monotonic() + rules.image_timeout_s
        request_id = f"{rules.name}-{index}"
        return ClassifyRequest(image, request_id, deadline, rules.options, rules.caller, "batch")
