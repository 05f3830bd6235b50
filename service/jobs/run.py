"""One durable job from where it stands to its end, one append at a time."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from service.errors import Internal, ServiceError, StorageFull
from service.jobs.items import Item, Line
from service.jobs.reader import LoadedItem
from service.jobs.results import Progress, ResultsFile, line_encoder
from service.jobs.scoring import Scorer, ScoringRules, SliceClassifier
from service.jobs.sources import open_source, unpack_location
from service.jobs.spool import Spool, SpoolLimits
from service.jobs.storage import Storage
from service.jobs.store import Job, JobStore
from service.jobs.window import Window
from service.settings import Settings
from service.types import ClassifyOptions

# An append is two flushes to the disk, one of the results and one of the store.
APPEND_EVERY_S = 0.5
APPEND_LINES = 2048
PAUSE_S = 2.0  # between two looks whether what is missing is there again
STALL_S = 5.0  # without an answer for so long, and a reason known, a job is shown as paused
RATE_SPAN_S = 30.0

Result = TypeVar("Result")

log = logging.getLogger("jobs")


@dataclass(frozen=True, slots=True)
class Bench:
    """What every job of a runner works with."""

    settings: Settings
    store: JobStore
    storage: Storage
    classifier: SliceClassifier
    root: Path


class JobRun:
    """`run` ends when the job does; cancelling the task keeps what is done."""

    def __init__(self, job: Job, bench: Bench) -> None:
        self._job, self._bench = job, bench
        self._folder = bench.root / job.id
        self._source = open_source(unpack_location(job.source)) if job.source else None
        settings = bench.settings
        rules = ScoringRules(
            name=job.id,
            options=msgspec.json.decode(job.options, type=ClassifyOptions),
            image_timeout_s=settings.max_request_timeout_s,
            patience_s=float("inf"),
            max_image_bytes=settings.max_image_bytes,
            caller=job.caller,
        )
        self._scorer = Scorer(bench.classifier, rules, self._source)
        self._progress = Progress(job.done, job.failed, job.results_bytes)
        self._buffer: list[bytes] = []
        self._coming = self._progress  # with what is in the buffer
        self._history: deque[tuple[float, int]] = deque()
        self._shown = ("", "")
        self._writing: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Score every item that has no line yet; raises what makes the job fail."""
        await self._show("running", "")
        if self._job.total is None:
            await self._list_source()
        results = await self._patiently(lambda: ResultsFile(self._folder))
        try:
            self._progress = self._coming = await asyncio.to_thread(results.recover, self._progress)
            self._history.append((time.monotonic(), self._progress.lines))
            await self._score(results)
        finally:
            results.close()

    async def _score(self, results: ResultsFile) -> None:
        async with self._scorer.open_window(self._folder, self._progress.lines) as window:
            is_over = False
            try:
                while not is_over:
                    is_over = await self._collect(window)
                    await self._append(results)
            finally:
                with suppress(StorageFull, SQLAlchemyError):
                    await self._append_once(results)

    async def _collect(self, window: Window[LoadedItem, Line]) -> bool:
        """Buffer the lines of one append, at least one; True where they were the last."""
        ends = float("inf")
        while len(self._buffer) < APPEND_LINES:
            left_s = min(STALL_S, ends - time.monotonic())
            try:
                async with asyncio.timeout(left_s):
                    taken = await window.take(APPEND_LINES - len(self._buffer))
            except TimeoutError:
                if self._buffer:
                    return False
                if self._scorer.is_waiting:
                    await self._show("paused", self._scorer.is_waiting)
                continue
            if not taken:
                return True
            if not self._buffer:
                ends = time.monotonic() + APPEND_EVERY_S
            self._buffer_lines(taken)
        return False

    def _buffer_lines(self, lines: list[Line]) -> None:
        data = [line_encoder.encode(line) + b"\n" for line in lines]
        self._buffer += data
        failed = sum(line.error is not None for line in lines)
        self._coming = self._coming.add_lines(len(lines), failed, sum(map(len, data)))

    async def _append(self, results: ResultsFile) -> None:
        while self._buffer:
            try:
                await self._append_once(results)
            except (StorageFull, SQLAlchemyError) as error:
                await self._pause(error)

    async def _append_once(self, results: ResultsFile) -> None:
        """The buffer becomes durable, then known; a repetition after a failure writes the same bytes."""
        if self._writing is not None:  # left alone by a cancellation
            await asyncio.wait([self._writing])
        data, coming = b"".join(self._buffer), self._coming
        if not data:
            return
        self._history.append((time.monotonic(), coming.lines))
        while len(self._history) > 2 and self._history[-1][0] - self._history[0][0] > RATE_SPAN_S:
            self._history.popleft()
        (first_s, first), (last_s, last) = self._history[0], self._history[-1]
        rate = (last - first) / (last_s - first_s) if last_s > first_s else 0.0
        write = asyncio.to_thread(self._write, results, data, coming, rate)
        self._writing = asyncio.ensure_future(write)
        await asyncio.shield(self._writing)
        self._progress, self._shown = coming, ("running", "")
        self._buffer.clear()

    def _write(self, results: ResultsFile, data: bytes, coming: Progress, rate_per_s: float) -> None:
        self._bench.storage.check_reserve(len(data))
        results.write(self._progress.size_bytes, data)
        self._bench.store.change(
            self._job.id,
            status="running",
            reason="",
            done=coming.done,
            failed=coming.failed,
            results_bytes=coming.size_bytes,
            rate_per_s=rate_per_s,
        )

    async def _pause(self, error: Exception) -> None:
        reason = error.detail if isinstance(error, ServiceError) else "the store of batch jobs takes no more"
        await self._show("paused", reason)
        await asyncio.sleep(PAUSE_S)

    async def _show(self, status: str, reason: str) -> None:
        if self._shown == (status, reason):
            return
        log.info(f"job {status}", extra={"fields": {"job": self._job.id, "reason": reason}})
        self._shown = (status, reason)
        try:
            values = {"status": status, "reason": reason, "rate_per_s": 0.0}
            change = partial(self._bench.store.change, self._job.id, **values)
            await asyncio.to_thread(self._bench.storage.write_store, change)
        except SQLAlchemyError:  # it is shown when it can be
            self._shown = ("", "")

    async def _list_source(self) -> None:
        """Write down once what the source holds, so that item n stays item n."""
        total = await self._patiently(self._list)
        log.info("source listed", extra={"fields": {"job": self._job.id, "items": total}})

    def _list(self) -> int:
        assert self._source is not None
        settings = self._bench.settings
        limits = SpoolLimits(settings.max_batch_bytes, settings.max_batch_items, settings.max_image_bytes)
        spool = Spool(self._folder, limits, self._bench.storage.check_reserve)
        try:
            for file in self._source.list():
                spool.check_count(spool.count + 1)
                spool.add(Item(file.name, size=file.size_bytes, source=file.name))
            spool.finish(durable=True)
        finally:
            spool.close()
        self._bench.store.change(self._job.id, total=spool.count)
        return spool.count

    async def _patiently(self, call: Callable[[], Result]) -> Result:
        while True:
            try:
                return await asyncio.to_thread(call)
            except (StorageFull, Internal, SQLAlchemyError) as error:
                await self._pause(error)
