"""One offline run: from SOURCE to a file of predictions, by way of a work folder that survives a kill.

The work folder, OUT.work, holds what the source listed or unpacked, and a line for every finished image. A
second run with the same OUT goes on where the first one stopped; when all are done, OUT appears at once.
"""

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from service.errors import BadRequest, Conflict
from service.jobs.items import Line
from service.jobs.parquet import write_parquet
from service.jobs.results import RESULTS, line_decoder, line_encoder
from service.jobs.tables import CSV_HEADER, format_csv
from service.offline.inputs import Inputs, open_folder, spool_source
from service.offline.scorer import OfflineScorer
from service.settings import Settings
from service.types import ClassifyOptions

PLAN = "plan.json"
CHUNK_ITEMS = 16
SUFFIXES = (".parquet", ".csv", ".ndjson", ".jsonl")


class Plan(msgspec.Struct, frozen=True):
    """What a run is of; another plan may not go on in its work folder. `digest`: of the model's card."""

    source: str
    digest: str
    options: ClassifyOptions
    total: int = 0


@dataclass(slots=True)
class Summary:
    """What is done: images by their best class, images without one, images done by an earlier run."""

    total: int = 0
    resumed: int = 0
    failed: int = 0
    classes: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Images with a line."""
        return self.failed + self.classes.total()

    def add(self, line: Line) -> None:
        """Count one line."""
        if line.error is not None or not line.predictions:
            self.failed += 1
        else:
            self.classes[line.predictions[0].label] += 1


class OfflineRun:
    """`prepare`, `score`, `write`, in that order. `summary` may be read at any time."""

    def __init__(self, plan: Plan, out: Path, settings: Settings) -> None:
        """Raises BadRequest for a suffix that is none of SUFFIXES."""
        if out.suffix not in SUFFIXES:
            raise BadRequest(f"{out.name} must end in {', '.join(SUFFIXES)}")
        self.summary = Summary()
        self._plan, self._out, self._settings = plan, out, settings
        self._work = out.with_name(out.name + ".work")
        self._finished: set[int] = set()
        self._writing = threading.Lock()
        self._is_stopping = threading.Event()

    def prepare(self) -> None:
        """List or unpack the source, or take up an earlier run. Raises ServiceError."""
        self._work.mkdir(parents=True, exist_ok=True)
        plan = self._read_plan()
        if plan is None:
            total = spool_source(self._plan.source, self._work, self._settings)
            plan = msgspec.structs.replace(self._plan, total=total)
            partial = self._work / f"{PLAN}.partial"
            partial.write_bytes(msgspec.json.encode(plan))
            partial.replace(self._work / PLAN)
        elif msgspec.structs.replace(plan, total=0) != self._plan:
            raise Conflict(f"{self._work} was begun with another source, model or option; remove it first")
        self.summary.total = plan.total
        for line in self._recover():
            self._finished.add(line.index)
            self.summary.add(line)
        self.summary.resumed = self.summary.done

    def score(self, scorer: OfflineScorer, threads: int) -> None:
        """Score what is left on `threads` threads; KeyboardInterrupt stops after the images under way."""
        inputs = Inputs(self._work, open_folder(self._plan.source), self._finished, self._settings)
        with (self._work / RESULTS).open("ab") as journal, ThreadPoolExecutor(threads) as pool:

            def run() -> None:
                while not self._is_stopping.is_set() and (items := inputs.take(CHUNK_ITEMS)):
                    self._keep(scorer.score(items), journal.write, journal.flush)

            lanes = [pool.submit(run) for _ in range(threads)]
            try:
                for lane in lanes:
                    lane.result()
            finally:
                self._is_stopping.set()
        inputs.close()

    def write(self) -> None:
        """Write OUT from the lines, in the source's order, and remove the work folder."""
        partial = self._out.with_name(self._out.name + ".partial")
        if self._out.suffix == ".parquet":
            write_parquet(self._read_in_order(), str(partial))
        else:
            encode = _encode_csv if self._out.suffix == ".csv" else _encode_ndjson
            with partial.open("wb") as file:
                file.writelines(encode(self._read_in_order()))
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(self._out)
        shutil.rmtree(self._work)

    def _read_plan(self) -> Plan | None:
        try:
            return msgspec.json.decode((self._work / PLAN).read_bytes(), type=Plan)
        except FileNotFoundError:
            return None

    def _recover(self) -> Iterator[Line]:
        """Every whole line of an earlier run; what a kill tore is cut off."""
        path = self._work / RESULTS
        path.touch()
        whole_bytes = 0
        with path.open("rb+") as file:
            for data in file:
                if not data.endswith(b"\n"):
                    break
                whole_bytes += len(data)
                yield line_decoder.decode(data)
            file.truncate(whole_bytes)

    def _keep(self, lines: list[Line], write: Callable[[bytes], int], flush: Callable[[], None]) -> None:
        data = b"".join([line_encoder.encode(line) + b"\n" for line in lines])
        with self._writing:
            write(data)
            flush()
            for line in lines:
                self.summary.add(line)

    def _read_in_order(self) -> Iterator[Line]:
        """Lines were written as threads finished; read them by the number of their image."""
        offsets = np.full(self.summary.total, -1, np.int64)
        with (self._work / RESULTS).open("rb") as file:
            at = 0
            for data in file:
                offsets[line_decoder.decode(data).index] = at
                at += len(data)
            for offset in offsets:
                file.seek(int(offset))
                yield line_decoder.decode(file.readline())


def _encode_csv(lines: Iterator[Line]) -> Iterator[bytes]:
    yield CSV_HEADER
    for line in lines:
        yield format_csv([line])


def _encode_ndjson(lines: Iterator[Line]) -> Iterator[bytes]:
    for line in lines:
        yield line_encoder.encode(line) + b"\n"
