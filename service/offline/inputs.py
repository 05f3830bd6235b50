"""What an offline batch reads: a folder, a prefix of a store, an archive, lines of JSON, or one image.

Listed or unpacked once into a work folder, so that image n stays image n however often the run is resumed.
"""

import os
import threading
from collections.abc import Set
from itertools import islice
from pathlib import Path

from service.errors import BadRequest, ServiceError
from service.jobs.items import Item, describe_error
from service.jobs.reader import LoadedItem, iterate_items
from service.jobs.reading.formats import SNIFFED_BYTES, is_batch, spool_body
from service.jobs.reading.members import CHUNK_BYTES
from service.jobs.sources import Location, Source, open_source
from service.jobs.spool import IMAGES, Spool, SpoolLimits
from service.jobs.storage import Storage
from service.settings import Settings


def spool_source(source: str, work: Path, settings: Settings) -> int:
    """Write down what `source` (a path or a URL) holds; returns the number of images. Raises ServiceError."""
    limits = SpoolLimits(settings.max_batch_bytes, settings.max_batch_items, settings.max_image_bytes)
    storage = Storage(work, settings.max_batch_bytes, settings.jobs_reserve_bytes, lambda: 0)
    spool = Spool(work, limits, storage.check_reserve)
    try:
        reading = open_folder(source)
        if reading is not None:
            for file in reading.list():
                spool.check_count(spool.count + 1)
                spool.add(Item(file.name, source=file.name))
        else:
            _spool_file(Path(source), spool)
        spool.finish(durable=False)
        return spool.count
    finally:
        spool.close()


def open_folder(source: str) -> Source | None:
    """The folder or prefix that `source` names; None where it is a file. Raises BadRequest."""
    if "://" in source:
        protocol, _, path = source.partition("://")
        return open_source(Location(protocol, path.rstrip("/")))
    path = os.path.realpath(source)
    if os.path.isdir(path):
        return open_source(Location("file", path, root="/"))
    if not os.path.isfile(path):
        raise BadRequest(f"there is no file or folder {source}")
    return None


class Inputs:
    """Hands out the images that are still to be scored, some at a time, to any number of threads."""

    def __init__(self, work: Path, source: Source | None, finished: Set[int], settings: Settings) -> None:
        items = iterate_items(work)
        self._items = ((index, item) for index, item in items if index not in finished)
        self._source, self._max_image_bytes = source, settings.max_image_bytes
        self._lock = threading.Lock()
        self._images = (work / IMAGES).open("rb")

    def take(self, count: int) -> list[LoadedItem]:
        """The next images with their bytes; [] at the end."""
        with self._lock:
            taken = list(islice(self._items, count))
        return [self._load(index, item) for index, item in taken]

    def close(self) -> None:
        """Close the spool."""
        self._images.close()

    def _load(self, index: int, item: Item) -> LoadedItem:
        if self._source is None or not item.source:
            return LoadedItem(index, item, os.pread(self._images.fileno(), item.size, item.offset))
        try:
            return LoadedItem(index, item, self._source.read(item.source, self._max_image_bytes))
        except ServiceError as error:
            return LoadedItem(index, Item(item.id, error=describe_error(error)), b"")


def _spool_file(path: Path, spool: Spool) -> None:
    with path.open("rb") as file:
        head = file.read(SNIFFED_BYTES)
        file.seek(0)
        if is_batch(head):
            spool_body(head, file, spool, "")
            return
        spool.begin(path.name)
        while chunk := file.read(CHUNK_BYTES):
            spool.write(chunk)
        spool.end()
