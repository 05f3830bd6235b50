"""Scores the items of a batch through the Classifier: many at once, patiently, one line each, in order."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from service.errors import (
    BrokenImage,
    DeadlinePassed,
    Draining,
    Internal,
    NoWorker,
    Overloaded,
    ServiceError,
    UnknownModel,
)
from service.flights import Landing, Landings
from service.jobs.items import Line, describe_error, make_error_line, make_line
from service.jobs.reader import LoadedItem, read_items
from service.jobs.sources import Source
from service.jobs.window import Window, WindowLimits
from service.types import Classification, ClassifyOptions, ClassifyRequest

# What may pass by itself. A batch has no deadline of its own, so it waits; interactive work goes first.
TRANSIENT = (Overloaded, NoWorker, UnknownModel)
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.05, 5.0
TRIES = 3  # of an image that ends in DeadlinePassed or Internal: maybe it is the image, maybe it is not


class SliceClassifier(Protocol):
    """The Classifier, as far as batches know it."""

    def classify_slice(self, requests: Sequence[ClassifyRequest]) -> AsyncGenerator[Landings, None]:
        """How images that have everything else in common end, some at a time, by their place."""
        ...

    def count_slice(self, options: ClassifyOptions) -> int:
        """How many images had better be asked for together."""
        ...


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

    def __init__(
        self, classifier: SliceClassifier, rules: ScoringRules, source: Source | None = None
    ) -> None:
        self._classifier, self._rules, self._source = classifier, rules, source
        self.is_waiting = ""

    def open_window(self, folder: Path, first: int = 0) -> Window[LoadedItem, Line]:
        """The lines of a spooled batch from item `first` on, in order; use it with `async with`."""
        items = read_items(folder, partial(self._classifier.count_slice, self._rules.options), first)
        return Window(items, self.score, lambda some: sum(one.item.size for one in some), WindowLimits())

    async def score(self, some: Sequence[LoadedItem]) -> AsyncGenerator[list[tuple[int, Line]], None]:
        """The lines of some items as they come, by place; of ServiceError raises Draining alone."""
        is_here = all(one.image or one.item.error for one in some)
        loaded = some if is_here else await asyncio.gather(*[self._load(one) for one in some])
        left: list[int] = []
        for place, one in enumerate(loaded):
            if one.item.error is None:
                left.append(place)
            else:
                yield [(place, make_error_line(one.index, one.item, one.item.error))]
        patience = _Patience(self._rules.patience_s)
        while left:
            asked, left = left, []
            requests = self._make_requests([loaded[place] for place in asked])
            async with aclosing(self._classifier.classify_slice(requests)) as classifying:
                async for landings in classifying:
                    ended = [(asked[number], landing) for number, landing in landings]
                    left += [place for place, landing in ended if patience.bears(place, landing)]
                    self.is_waiting = patience.lacks if len(left) == len(asked) else ""
                    yield [
                        (place, _make_line(loaded[place], landing))
                        for place, landing in ended
                        if place not in left
                    ]
            if left:
                await asyncio.sleep(patience.take_wait_s())

    async def _load(self, one: LoadedItem) -> LoadedItem:
        """With its bytes from the source, or with the error of reading them."""
        if one.image or one.item.error:
            return one
        try:
            return msgspec.structs.replace(one, image=await self._read(one.item.source))
        except ServiceError as error:
            return msgspec.structs.replace(
                one, item=msgspec.structs.replace(one.item, error=describe_error(error))
            )

    async def _read(self, source_name: str) -> bytes:
        if self._source is None or not source_name:
            raise BrokenImage("the image is empty")
        for _ in range(TRIES - 1):
            try:
                return await asyncio.to_thread(self._source.read, source_name, self._rules.max_image_bytes)
            except Internal:
                await asyncio.sleep(1.0)
        return await asyncio.to_thread(self._source.read, source_name, self._rules.max_image_bytes)

    def _make_requests(self, chunk: Sequence[LoadedItem]) -> list[ClassifyRequest]:
        rules = self._rules
        deadline = time.monotonic() + rules.image_timeout_s
        return [
            ClassifyRequest(
                one.image, f"{rules.name}-{one.index}", deadline, rules.options, rules.caller, "batch"
            )
            for one in chunk
        ]


def _make_line(loaded: LoadedItem, landing: Landing) -> Line:
    if isinstance(landing, Classification):
        return make_line(loaded.index, loaded.item, landing)
    if isinstance(landing, Draining):
        raise landing
    return make_error_line(loaded.index, loaded.item, describe_error(landing))


class _Patience:
    """Which errors are worth another try, and how long to wait for it; `lacks` is what the last one said."""

    def __init__(self, patience_s: float) -> None:
        self.lacks = ""
        self._gives_up = time.monotonic() + patience_s
        self._backoff_s, self._wait_s = SHORTEST_WAIT_S, 0.0
        self._tries: Counter[int] = Counter()

    def bears(self, place: int, error: Landing) -> bool:
        """Whether the image at `place` is tried again after `error`."""
        if isinstance(error, Classification):
            return False
        if isinstance(error, TRANSIENT):
            self.lacks = error.detail
            self._wait_s = max(self._wait_s, self._backoff_s, error.retry_after_s or 0.0)
            return time.monotonic() <= self._gives_up
        self._tries[place] += 1
        return isinstance(error, DeadlinePassed | Internal) and self._tries[place] < TRIES

    def take_wait_s(self) -> float:
        """Before the next try: longer each time, none where nothing was lacking."""
        wait_s, self._wait_s = min(LONGEST_WAIT_S, self._wait_s), 0.0
        self._backoff_s = min(LONGEST_WAIT_S, self._backoff_s * 2)
        return wait_s
