"""The application service behind /v1/batch: receives batches, scores them now, or files them as durable jobs.

A frontend has one. It writes into SERVE_JOBS_DIR and never runs a durable job: that is the job runner's.
"""

import asyncio
import hashlib
import logging
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from service.classifier import Classifier
from service.errors import Conflict, Internal, NotFound, StorageFull
from service.jobs.folder import JobFolder
from service.jobs.items import Line
from service.jobs.reception import Received, Reception
from service.jobs.scoring import Scorer, ScoringRules
from service.jobs.sources import find_location, open_source, pack_location, parse_roots
from service.jobs.spool import SpoolLimits
from service.jobs.storage import RETRY_S, Storage
from service.jobs.store import Job, JobStore, KeyTaken, open_store
from service.settings import Settings
from service.types import ClassifyOptions

SCORING_PATIENCE_S = 60.0
LINES_AT_ONCE = 256

log = logging.getLogger("batch")


@dataclass(frozen=True, slots=True)
class Submission:
    """With which options, under which idempotency key ("" for none), and who files it."""

    options: ClassifyOptions
    key: str = ""
    caller: str = ""


class BatchDesk:
    """Nothing is opened before the first batch comes: a service without a disk for jobs still classifies."""

    def __init__(self, settings: Settings, classifier: Classifier) -> None:
        """Raises BadSettings for roots that are no URLs."""
        self._settings, self._classifier = settings, classifier
        self._root = settings.jobs_dir.absolute()
        self._roots = parse_roots(settings.batch_roots)
        limits = SpoolLimits(settings.max_batch_bytes, settings.max_batch_items, settings.max_image_bytes)
        self._reception = Reception(self._root, limits)
        self._store: JobStore | None = None

    async def receive(
        self, body: AsyncIterator[bytes], content_type: str, declared_bytes: int, *, durable: bool
    ) -> Received:
        """Spool a whole body; the caller removes the folder or submits it. Raises ServiceError."""
        self._reception.check_size(declared_bytes)
        store = await self._open()
        return await self._reception.receive(body, content_type, self._open_storage(store), durable=durable)

    async def score(
        self, received: Received, options: ClassifyOptions, request_id: str
    ) -> AsyncIterator[list[Line]]:
        """The lines of a received batch, in order, as they come."""
        rules = ScoringRules(
            name=request_id[:50],
            options=options,
            image_timeout_s=self._settings.max_request_timeout_s,
            patience_s=SCORING_PATIENCE_S,
            max_image_bytes=self._settings.max_image_bytes,
        )
        scorer = Scorer(self._classifier, rules)
        async with scorer.open_window(received.folder.path) as window:
            while lines := await window.take(LINES_AT_ONCE):
                yield lines

    async def submit(self, received: Received, submission: Submission) -> Job:
        """File a received batch; its folder is the job's from now on. Raises Conflict, StorageFull."""
        job = self._make_job(received.folder, submission, received.digest)
        return await self._file(
            replace(job, total=received.items, spool_bytes=received.size_bytes), received.folder
        )

    async def submit_source(self, url: str, submission: Submission) -> Job:
        """File a job on images that lie in an allowed folder; the runner lists them. Raises ServiceError."""
        location = find_location(url, self._roots)
        await asyncio.to_thread(open_source, location)
        await self._open()
        folder = await asyncio.to_thread(JobFolder.create, self._root)
        job = self._make_job(folder, submission, location.url)
        return await self._file(replace(job, source=pack_location(location)), folder)

    async def find(self, id: str, caller: str = "") -> Job:
        """The job `caller` filed, any job where keys are off ("" asks); raises NotFound."""
        store = await self._open()
        job = await asyncio.to_thread(store.find, id)
        if job is None or (caller and job.caller != caller):
            kept = f"results are kept for {self._settings.jobs_retention_s:.0f} s (SERVE_JOBS_RETENTION_S)"
            raise NotFound(f"there is no such batch; {kept}")
        return job

    async def end(self, id: str, caller: str = "") -> Job | None:
        """Ask for an open job to be cancelled and return it; delete a finished one and return None."""
        store = await self._open()
        is_open = (await self.find(id, caller)).is_open
        change = partial(store.cancel if is_open else store.delete, id)
        try:
            await asyncio.to_thread(self._open_storage(store).write_store, change)
        except SQLAlchemyError as err:
            raise StorageFull("the store of batch jobs takes no more", RETRY_S) from err
        if is_open:
            return await self.find(id, caller)
        await asyncio.to_thread(shutil.rmtree, self._root / id, ignore_errors=True)
        return None

    def _open_storage(self, store: JobStore) -> Storage:
        settings = self._settings
        return Storage(self._root, settings.jobs_quota_bytes, settings.jobs_reserve_bytes, store.count_bytes)

    def folder_of(self, job: Job) -> Path:
        """Where its files are."""
        return self._root / job.id

    async def _file(self, job: Job, folder: JobFolder) -> Job:
        try:
            filed = await asyncio.to_thread(self._add, job)
        except BaseException:
            await asyncio.to_thread(folder.remove)
            raise
        if filed.id == job.id:
            folder.release()
        else:  # a retry of what was submitted already
            await asyncio.to_thread(folder.remove)
        return filed

    def _add(self, job: Job) -> Job:
        assert self._store is not None
        try:
            self._store.add(job)
        except KeyTaken as taken:
            if taken.job.digest != job.digest:
                raise Conflict(
                    "that Idempotency-Key was used for a batch of other images or options"
                ) from None
            return taken.job
        except SQLAlchemyError as err:
            raise StorageFull("the store of batch jobs takes no more", 60.0) from err
        return job

    def _make_job(self, folder: JobFolder, submission: Submission, digest: str) -> Job:
        options = msgspec.json.encode(submission.options)
        return Job(
            id=folder.id,
            options=options,
            created=time.time(),
            caller=submission.caller,
            key=submission.key or None,
            digest=hashlib.sha256(options + digest.encode()).hexdigest(),
        )

    async def _open(self) -> JobStore:
        if self._store is None:
            try:
                self._store = await asyncio.to_thread(open_store, self._root)
            except (OSError, SQLAlchemyError) as err:
                log.exception("the store of batch jobs cannot be opened")
                raise Internal("the folder of batch jobs cannot be used (SERVE_JOBS_DIR)") from err
        return self._store
