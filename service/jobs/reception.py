"""Receives the body of a batch into a folder of its own, while it arrives."""

import asyncio
import io
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.errors import TooLarge
from service.jobs.body import BodyPipe
from service.jobs.folder import JobFolder
from service.jobs.reading.formats import SNIFFED_BYTES, spool_body
from service.jobs.reading.members import CHUNK_BYTES
from service.jobs.spool import Spool, SpoolLimits
from service.jobs.storage import Storage

# Each body being received occupies a thread; more bodies than that wait unread.
MAX_RECEIVING = 32


@dataclass(frozen=True, slots=True)
class Received:
    """A batch in its folder: `items` images of `size_bytes` together; `digest` of their names and bytes."""

    folder: JobFolder
    items: int
    size_bytes: int
    digest: str


class Reception:
    """One for all batches of a frontend."""

    def __init__(self, root: Path, limits: SpoolLimits) -> None:
        self._root, self._limits = root, limits
        self._parsers = ThreadPoolExecutor(MAX_RECEIVING, "batch-body")

    def check_size(self, size_bytes: int) -> None:
        """Raises TooLarge for a body over SERVE_MAX_BATCH_BYTES."""
        limit = self._limits.max_batch_bytes
        if size_bytes > limit:
            raise TooLarge(f"the body is larger than the limit, {limit} bytes (SERVE_MAX_BATCH_BYTES)")

    async def receive(
        self, body: AsyncIterator[bytes], content_type: str, storage: Storage, *, durable: bool
    ) -> Received:
        """Spool a whole body; the caller removes or releases the folder. Raises ServiceError.

        Whatever ends it early, nothing of it stays on the disk.
        """
        folder = await asyncio.to_thread(JobFolder.create, self._root)
        pipe = BodyPipe()
        parse = partial(self._parse, folder, pipe, content_type, storage, durable)
        parsing = asyncio.get_running_loop().run_in_executor(self._parsers, parse)
        try:
            await self._pump(body, pipe, parsing)
            return await asyncio.shield(parsing)
        except BaseException:
            pipe.fail()
            await asyncio.wait([parsing])
            parsing.exception()
            await asyncio.to_thread(folder.remove)
            raise

    async def _pump(
        self, body: AsyncIterator[bytes], pipe: BodyPipe, parsing: "asyncio.Future[Received]"
    ) -> None:
        size = 0
        async for chunk in body:
            size += len(chunk)
            self.check_size(size)
            if parsing.done():  # it has found a reason to refuse
                return
            await pipe.feed(chunk)
        pipe.finish()

    def _parse(
        self, folder: JobFolder, pipe: BodyPipe, content_type: str, storage: Storage, durable: bool
    ) -> Received:
        spool = Spool(folder.path, self._limits, storage.check_room)
        try:
            head = pipe.peek(SNIFFED_BYTES)
            spool_body(head, io.BufferedReader(pipe, CHUNK_BYTES), spool, content_type)
            digest = spool.finish(durable=durable)
            return Received(folder, spool.count, spool.size_bytes, digest)
        finally:
            pipe.abandon()
            spool.close()
