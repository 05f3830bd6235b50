"""The job runner: finds open jobs, runs some at a time, ends cancelled ones, removes old ones and leftovers.

A bulk-priority client of the same workers as everybody. It may be killed at any moment: the next one goes on
from the last line that reached the disk.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import time
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service.errors import ServiceError
from service.jobs.folder import JobFolder
from service.jobs.run import Bench, JobRun
from service.jobs.scoring import SliceClassifier
from service.jobs.spool import IMAGES, ITEMS
from service.jobs.storage import Storage
from service.jobs.store import Job, JobStore, Status, open_store
from service.settings import Settings

POLL_S = 0.5
WATCH_S = 0.05  # between two looks whether the store was written to: one stat, 10 microseconds
RETRY_S = 10.0
SWEEP_EVERY_S = 60.0
MAX_RUNNING = 4  # jobs at a time, so that a small one does not wait for a huge one
FRESH_S = 60.0  # a folder younger than this may be about to be locked
LOCK = "runner.lock"

log = logging.getLogger("jobs")


class JobRunner:
    """`run` never returns; cancelling it keeps what is done."""

    def __init__(self, settings: Settings, classifier: SliceClassifier) -> None:
        self._settings, self._classifier = settings, classifier
        self._root = settings.jobs_dir.absolute()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ending: set[str] = set()
        self._ended: set[str] = set()
        self._next_sweep = 0.0

    async def run(self) -> None:
        """Wait for the folder and for any runner before this one, then look after jobs for ever."""
        bench = await self._open()
        while not _try_lock(self._root / LOCK):  # noqa: ASYNC110  # the kernel tells nobody
            await asyncio.sleep(POLL_S)
        try:
            while True:
                try:
                    await self._look_after(bench)
                except SQLAlchemyError:
                    log.exception("the store of batch jobs cannot be used")
                    await asyncio.sleep(RETRY_S)
                await self._wait_change(bench)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _open(self) -> Bench:
        was_told = False
        while True:
            try:
                store = await asyncio.to_thread(open_store, self._root)
            except (OSError, SQLAlchemyError) as err:
                if not was_told:
                    fields = {"folder": str(self._root), "cause": str(err)}
                    log.warning("no batch jobs: SERVE_JOBS_DIR cannot be used", extra={"fields": fields})
                was_told = True
                await asyncio.sleep(RETRY_S)
                continue
            settings = self._settings
            storage = Storage(
                self._root, settings.jobs_quota_bytes, settings.jobs_reserve_bytes, store.count_bytes
            )
            return Bench(settings, store, storage, self._classifier, self._root)

    async def _wait_change(self, bench: Bench) -> None:
        """Until the store is written to, POLL_S at most: a job begins, and is cancelled, soon."""
        seen, ends = bench.store.read_stamp(), time.monotonic() + POLL_S
        while time.monotonic() < ends:
            await asyncio.sleep(min(WATCH_S, POLL_S))
            if bench.store.read_stamp() != seen:
                return

    async def _look_after(self, bench: Bench) -> None:
        self._ended.clear()
        for job in await asyncio.to_thread(bench.store.list_open):
            task = self._running.get(job.id)
            if job.id in self._ending or job.id in self._ended:  # it ended while the list was read
                continue
            if job.is_cancelled and task is not None:
                self._ending.add(job.id)
                task.cancel()
            elif job.is_cancelled:
                await asyncio.to_thread(_end, bench, job.id, "cancelled")
            elif task is None and len(self._running) < MAX_RUNNING:
                self._running[job.id] = asyncio.create_task(self._run(job, bench))
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_EVERY_S
            await asyncio.to_thread(bench.storage.fill_ballast)
            await asyncio.to_thread(sweep, bench.store, self._root, self._settings.jobs_retention_s)

    async def _run(self, job: Job, bench: Bench) -> None:
        log.info("job begins", extra={"fields": {"job": job.id, "lines": job.lines, "total": job.total}})
        try:
            status, reason = await self._score(job, bench)
            await asyncio.to_thread(_end, bench, job.id, status, reason)
            log.info("job ended", extra={"fields": {"job": job.id, "status": status}})
        finally:  # only now: a job whose end is not yet in the store would be begun again
            self._ended.add(job.id)
            self._running.pop(job.id, None)
            self._ending.discard(job.id)

    async def _score(self, job: Job, bench: Bench) -> tuple[Status, str]:
        try:
            await JobRun(job, bench).run()
        except asyncio.CancelledError:
            found = await asyncio.to_thread(bench.store.find, job.id)
            if found is None or not found.is_cancelled:
                raise  # the runner ends; the next one goes on
            return "cancelled", ""
        except ServiceError as error:
            return "failed", error.detail
        except Exception:
            log.exception("job failed", extra={"fields": {"job": job.id}})
            return "failed", "something went wrong here; the log has it under this job's id"
        return "done", ""


def _end(bench: Bench, id: str, status: Status, reason: str = "") -> None:
    bench.store.finish(id, status, reason)
    _drop_images(bench.root / id)


def _drop_images(folder: Path) -> None:
    for name in (IMAGES, ITEMS):
        (folder / name).unlink(missing_ok=True)


def _try_lock(path: Path) -> bool:
    """Whether no other runner of this folder lives; from then on the lock is held as long as this process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return False
    return True


def sweep(store: JobStore, root: Path, retention_s: float) -> None:
    """Delete what was finished long ago, and folders that belong to nobody: of bodies cut off by a kill."""
    for job in store.list_finished(time.time() - retention_s):
        store.delete(job.id)
        shutil.rmtree(root / job.id, ignore_errors=True)
    known = store.list_ids()
    for entry in os.scandir(root):
        if not entry.is_dir(follow_symlinks=False) or time.time() - entry.stat().st_mtime < FRESH_S:
            continue
        if entry.name in known:
            _drop_leftover_images(store, root / entry.name)
            continue
        folder = JobFolder.open_unlocked(root / entry.name)
        if folder is not None and store.find(folder.id) is None:
            folder.remove()
        elif folder is not None:
            folder.release()


def _drop_leftover_images(store: JobStore, folder: Path) -> None:
    if (folder / IMAGES).exists():
        job = store.find(folder.name)
        if job is not None and not job.is_open:
            _drop_images(folder)
