"""A classifier in which faults can be made to happen, and a gRPC server in front of it."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from models.card import Metric, ModelCard, PolicyCard, Preprocess, Provenance
from service.access.gate import Gate
from service.admission import InflightBudget, Lease
from service.classifier import Cancellable, Classifier
from service.errors import BrokenImage, ServiceError, UnknownModel
from service.flights import Land, Landing
from service.metrics import FrontendMetrics
from service.protocols.base import ProtocolContext
from service.settings import Settings
from service.types import (
    Classification,
    ClassifyRequest,
    ModelRef,
    ModelSummary,
    Prediction,
    RefusedVersion,
    Timings,
    TtaUse,
)

LABELS = ("cat", "dog", "frog")
PROBABILITIES = (0.25, 0.625, 0.125)
BROKEN = b"broken"
BULK = (0.0,) * 1_000  # logits that make an answer 8 kB, so that unread answers fill what buffers them
Result = TypeVar("Result")

CARD = ModelCard(
    name="pets",
    version=3,
    architecture="resnet20",
    labels=LABELS,
    preprocess=Preprocess(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
    window=8,
    provenance=Provenance("trained", "2026-01-01T00:00:00Z"),
    policies={"center": PolicyCard(), "ten_crop": PolicyCard()},
    metrics=(Metric("pets", "test", 300, "center", 8.25),),
)
SUMMARY = ModelSummary(
    name="pets",
    version=3,
    digest="d" * 64,
    state="ready",
    is_default=True,
    is_default_version=True,
    workers=1,
    precisions=("fp32",),
    card=CARD,
    cost_ms={"center": 1.0, "ten_crop": 9.5},
    refused=(RefusedVersion(4, "NaN in conv1.weight"),),
)


class FaultyClassifier:
    """Answers every image with PROBABILITIES, unless `on_classify` does something else first."""

    def __init__(self) -> None:
        self.is_ready = True
        self.is_draining = False
        self.generation = 0
        self.asked: list[ClassifyRequest] = []
        self.cancelled = 0
        self.under_way = 0
        self.most_under_way = 0
        self.on_classify: Callable[[ClassifyRequest], Coroutine[Any, Any, None]] | None = None
        self._budget = InflightBudget(1 << 28, lambda: 1.0)
        self._changed = asyncio.Event()

    def set_ready(self, is_ready: bool) -> None:
        self.is_ready, self.generation = is_ready, self.generation + 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_change(self, seen: int) -> int:
        while self.generation == seen:
            await self._changed.wait()
        return self.generation

    @property
    def held_bytes(self) -> int:
        return self._budget.held_bytes

    def reserve(self, size_bytes: int) -> Lease:
        return self._budget.reserve(size_bytes)

    def label_of(self, model: str) -> str:
        return "pets" if model in ("", "pets", "pets@3") else "other"

    def list_models(self) -> list[ModelSummary]:
        return [SUMMARY]

    def find_model(self, name: str) -> ModelSummary:
        if self.label_of(name) == "other":
            raise UnknownModel(f"no model {name!r} is served; served are: pets")
        return SUMMARY

    def launch(self, request: ClassifyRequest, land: Land) -> Cancellable:
        async def fly() -> None:
            try:
                landing: Landing = await self.classify(request)
            except ServiceError as error:
                landing = error
            except RuntimeError:  # what nobody foresaw, as when an answer makes no sense
                landing = cast(Landing, None)
            land(landing)

        return asyncio.get_running_loop().create_task(fly())

    async def classify(self, request: ClassifyRequest) -> Classification:
        self.asked.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        started = time.monotonic()
        try:
            self.find_model(request.options.model)
            if self.on_classify is not None:
                await self.on_classify(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        if request.image == BROKEN:
            raise BrokenImage("the image ends early")
        ranked = sorted(range(len(LABELS)), key=lambda index: -PROBABILITIES[index])
        found = [Prediction(index, LABELS[index], PROBABILITIES[index]) for index in ranked]
        return Classification(
            request.request_id,
            ModelRef("pets", 3, "d" * 64),
            tuple(found[: request.options.top_k]),
            TtaUse("center", "center", 1),
            Timings(0.1, 0.2, 0.3, (time.monotonic() - started) * 1000),
            BULK if request.options.wants_logits else None,
        )


class LoopThread:
    """An event loop on a thread of its own, as a server has it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result], timeout_s: float = 20.0) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Served:
    """A gRPC server on a free port of loopback, and the classifier behind it."""

    def __init__(
        self, thread: LoopThread, settings: Settings, metrics_dir: Path, gate: Gate | None = None
    ) -> None:
        from service.protocols import rpc

        self.thread = thread
        self.classifier = thread.run(_make_classifier())
        self.metrics = FrontendMetrics(metrics_dir, 0)
        context = ProtocolContext(
            settings, cast(Classifier, self.classifier), self.metrics, gate or Gate(None)
        )
        sock = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{sock.getsockname()[1]}"
        self.running = thread.run(rpc.start(context, sock))

    def drain(self, timeout_s: float) -> None:
        self.thread.run(self.running.drain(timeout_s))


async def _make_classifier() -> FaultyClassifier:
    return FaultyClassifier()


@contextmanager
def serve_rpc(metrics_dir: Path, *, gate: Gate | None = None, **settings: Any) -> Iterator[Served]:
    thread = LoopThread()
    try:
        served = Served(thread, Settings(**settings), metrics_dir, gate)
        try:
            yield served
        finally:
            served.drain(0.0)
    finally:
        thread.close()
