"""Scores one shard at a time with the pipeline and engine of `resnet-serve batch`, and writes its part.

A part appears whole or not at all, and scoring a shard twice writes the same rows, so whoever dies in between
loses one shard's work and nothing else.
"""

import io
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import fsspec
import pyarrow.parquet as pq

from deploy.ray.plan import Plan, Unit, name_part, open_plan
from deploy.ray.storage import StoreFolder
from service.errors import Conflict, Internal, ServiceError, TooLarge
from service.jobs.items import Item, Line, describe_error
from service.jobs.parquet import write_parquet
from service.jobs.reader import LoadedItem
from service.jobs.sources import Source
from service.offline.inputs import open_folder
from service.offline.model import open_model
from service.offline.run import CHUNK_ITEMS
from service.offline.scorer import OfflineScorer
from service.settings import Settings, load_settings

READERS = 8  # reads under way: an object store answers in tens of milliseconds, whatever the size
AHEAD_IMAGES = 64
TRIES = 3


@dataclass(frozen=True, slots=True)
class Shift:
    """What every scorer of a run is given: where OUT is, the settings that differ, and its threads."""

    out: str
    settings: dict[str, str]
    threads: int


@dataclass(frozen=True, slots=True)
class PartSummary:
    """A written part: how many rows it has, and how many of them are errors."""

    shard: int
    images: int
    failed: int


class ShardScorer:
    """Loads the model once. Raises Conflict where this machine's model is another one than the plan's."""

    def __init__(self, shift: Shift) -> None:
        self._out = StoreFolder(shift.out)
        self._plan = open_plan(self._out)
        self._settings = load_settings(shift.settings)
        options = self._plan.ask.options
        given = {
            "model": options.model,
            "tta": options.tta,
            "top_k": options.top_k,
            "precision": options.precision,
            "threads": shift.threads,
        }
        model = open_model(self._settings, given)
        if model.digest != self._plan.ask.digest:
            raise Conflict(f"{model.reference} is another model here than where the run was begun")
        self._scorer = OfflineScorer(model.loaded, model.labels, model.options)
        self._threads = shift.threads

    def score(self, shard: int) -> PartSummary:
        """Score a shard and write its part."""
        lines = self._score_all(shard)
        data = io.BytesIO()
        write_parquet(lines, data)
        self._out.write(name_part(shard), data.getvalue())
        return PartSummary(shard, len(lines), sum(line.error is not None for line in lines))

    def _score_all(self, shard: int) -> list[Line]:
        lines: list[Line] = []
        lock = threading.Lock()
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(self._threads) as lanes:
            items = _read_shard(self._plan, shard, readers, self._settings)

            def take() -> list[LoadedItem]:
                with lock:
                    return list(islice(items, CHUNK_ITEMS))

            def run() -> None:
                while chunk := take():
                    lines.extend(self._scorer.score(chunk))

            for lane in [lanes.submit(run) for _ in range(self._threads)]:
                lane.result()
        return sorted(lines, key=lambda line: line.index)


def _read_shard(
    plan: Plan, shard: int, readers: ThreadPoolExecutor, settings: Settings
) -> Iterator[LoadedItem]:
    units = plan.read_shard(shard)
    if units[0].row_group >= 0:
        for unit in units:
            yield from _read_row_group(plan, unit, settings.max_image_bytes)
        return
    source = open_folder(plan.ask.source)
    assert source is not None
    coming: deque[Future[LoadedItem]] = deque()
    for unit in units:
        coming.append(readers.submit(partial(_read_image, source, unit, settings.max_image_bytes)))
        if len(coming) >= AHEAD_IMAGES:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _read_image(source: Source, unit: Unit, max_bytes: int) -> LoadedItem:
    for tried in range(TRIES):
        try:
            return LoadedItem(unit.first, Item(unit.name), source.read(unit.name, max_bytes))
        except Internal as error:  # the store; it may pass
            last: ServiceError = error
            time.sleep(tried)
        except ServiceError as error:
            last = error
            break
    return LoadedItem(unit.first, Item(unit.name, error=describe_error(last)), b"")


def _read_row_group(plan: Plan, unit: Unit, max_bytes: int) -> Iterator[LoadedItem]:
    ask = plan.ask
    store, _ = fsspec.core.url_to_fs(ask.source)
    with store.open(unit.name, "rb") as opened:
        file = pq.ParquetFile(opened)
        has_id = ask.id_column in file.schema_arrow.names
        columns = [ask.image_column, ask.id_column] if has_id else [ask.image_column]
        index = unit.first
        for batch in file.iter_batches(CHUNK_ITEMS, row_groups=[unit.row_group], columns=columns):
            for row in batch.to_pylist():
                id = row[ask.id_column] if has_id else f"{unit.name}#{index - unit.first}"
                yield _load_row(index, id, row[ask.image_column], max_bytes)
                index += 1


def _load_row(index: int, id: Any, image: Any, max_bytes: int) -> LoadedItem:
    data: bytes = (image.get("bytes") if isinstance(image, dict) else image) or b""
    item = Item(id if isinstance(id, str | int) else None)
    if len(data) > max_bytes:
        error = TooLarge(f"the image is too large, the limit is {max_bytes} bytes (SERVE_MAX_IMAGE_BYTES)")
        return LoadedItem(index, Item(item.id, error=describe_error(error)), b"")
    return LoadedItem(index, item, data)
