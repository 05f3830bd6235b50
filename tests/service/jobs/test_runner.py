"""The job runner in this process, on a store that answers late."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from service.errors import Internal
from service.flights import Landings
from service.jobs import runner
from service.jobs.folder import JobFolder
from service.jobs.runner import JobRunner
from service.jobs.spool import Spool, SpoolLimits
from service.jobs.store import Job, JobStore, Status
from service.settings import load_settings
from service.types import ClassifyOptions, ClassifyRequest

PATIENCE_S = 60.0


class NeverAsked:
    """The job has no images."""

    async def classify_slice(self, requests: Sequence[ClassifyRequest]) -> AsyncGenerator[Landings, None]:
        """See SliceClassifier."""
        yield [(number, Internal("no")) for number in range(len(requests))]

    def count_slice(self, _: ClassifyOptions) -> int:
        """See SliceClassifier."""
        return 1


class LateStore(JobStore):
    """Its second list of open jobs was read while the job ran, and comes once it has ended."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lists = 0
        self.has_read, self.has_ended = threading.Event(), threading.Event()

    def list_open(self) -> list[Job]:
        """As the store's, but the second one late."""
        found = super().list_open()
        self.lists += 1
        if self.lists == 2:
            assert [job.is_open for job in found] == [True]
            self.has_read.set()
            assert self.has_ended.wait(PATIENCE_S)
        return found

    def finish(self, id: str, status: Status, reason: str = "") -> None:
        """As the store's, not before the second list was read."""
        assert self.has_read.wait(PATIENCE_S)
        super().finish(id, status, reason)


class Ears(logging.Handler):
    """Tells `store` of the job's end, and counts its beginnings."""

    def __init__(self, store: LateStore) -> None:
        super().__init__()
        self._store, self.begun = store, 0

    def emit(self, record: logging.LogRecord) -> None:
        self.begun += record.getMessage() == "job begins"
        if record.getMessage() == "job ended":
            self._store.has_ended.set()


def file_job(store: JobStore, root: Path) -> None:
    folder = JobFolder.create(root)
    spool = Spool(folder.path, SpoolLimits(1 << 20, 1_000, 1 << 20), lambda _: None)
    spool.finish(durable=True)
    spool.close()
    folder.release()
    options = msgspec.json.encode(ClassifyOptions(priority="bulk"))
    store.add(Job(id=folder.id, options=options, created=0.0, total=0))


def test_a_job_that_ended_while_the_list_was_read_is_not_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LateStore(tmp_path)
    file_job(store, tmp_path)
    monkeypatch.setattr(runner, "open_store", lambda _: store)
    monkeypatch.setattr(runner, "POLL_S", 0.01)
    ears = Ears(store)
    log = logging.getLogger("jobs")
    log.addHandler(ears)
    level = log.level
    log.setLevel(logging.INFO)  # not by monkeypatch: loggers remember what they were asked

    async def run() -> None:
        running = asyncio.create_task(
            JobRunner(load_settings({"jobs_dir": str(tmp_path)}, {}), NeverAsked()).run()
        )
        async with asyncio.timeout(PATIENCE_S):
            while store.lists < 4 and not running.done():  # noqa: ASYNC110  # it counts in threads
                await asyncio.sleep(0.01)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    try:
        asyncio.run(run())
    finally:
        log.removeHandler(ears)
        log.setLevel(level)
        store.close()
    assert store.has_ended.is_set()
    assert ears.begun == 1
