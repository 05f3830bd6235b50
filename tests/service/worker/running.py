"""A worker's threads inside the test: the real queue, lanes, IO and frames around an engine of the test's."""

import io
import threading
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.card import ModelCard, Preprocess, Provenance
from models.decode import DecodeLimits
from models.engines.base import Engine
from models.views import list_policies
from service.board import Board
from service.messages import Cancel, Classify, Drain, Failure, FrontendUp, Load, Ready, Result
from service.transport import ControlChannel, FrameReader, encode_frame, make_work_pair
from service.types import ClassifyOptions
from service.worker.pipeline import Pipeline, PipelineLimits
from service.worker.queue import Limits
from service.worker.serving import LoadedModel, serve_model
from tests.service.worker.parts import CLASSES, FAR, make_costs

SIDE = 32
TIMEOUT_S = 20.0
CENTER = ClassifyOptions(tta="center")
CARD = ModelCard(
    name="small",
    version=1,
    architecture="none",
    labels=tuple(f"class {index}" for index in range(CLASSES)),
    preprocess=Preprocess(SIDE, SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    window=8,
    provenance=Provenance("trained", "2026-01-01T00:00:00Z"),
)


def make_image(seed: int, side: int = SIDE) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return encode_png(pixels)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 [H, W, 3] -> PNG."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


class CountedBatches:
    """Where the worker counts its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def count_batch(self, views: int, compute_s: float) -> None:
        self.sizes.append(views)


class Frontend:
    """A frontend's end of a work connection, blocking."""

    def __init__(self, control: ControlChannel, slot: int) -> None:
        self.socket, end = make_work_pair()
        with end:
            control.send(FrontendUp(slot), end.fileno())
        self.socket.settimeout(TIMEOUT_S)
        self.loads: list[Load] = []
        self.payloads: dict[int, bytes] = {}
        self._reader = FrameReader()
        self._answers: dict[int, Result | Failure] = {}

    def send(self, id: int, image: bytes, options: ClassifyOptions = CENTER, deadline: float = FAR) -> None:
        """One image to classify."""
        self.socket.sendall(encode_frame(Classify(id, f"r{id}", deadline, options), image))

    def send_and_cancel(self, id: int, image: bytes) -> None:
        """One image, given up in the same breath."""
        self.socket.sendall(
            encode_frame(Classify(id, f"r{id}", FAR, CENTER), image) + encode_frame(Cancel(id))
        )

    def cancel(self, id: int) -> None:
        """Nobody waits for it."""
        self.socket.sendall(encode_frame(Cancel(id)))

    def receive(self, id: int) -> Result | Failure:
        """The answer to `id`, whatever comes before it."""
        while id not in self._answers:
            self.read()
        return self._answers.pop(id)

    def receive_load(self) -> Load:
        """The next Load."""
        seen = len(self.loads)
        while len(self.loads) == seen:
            self.read()
        return self.loads[seen]

    def read(self) -> None:
        """Take what the worker sends next; raises TimeoutError, EOFError."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise EOFError
        for message, payload in self._reader.feed(data):
            if isinstance(message, Load):
                self.loads.append(message)
            elif isinstance(message, Result | Failure):
                assert message.id not in self._answers
                self._answers[message.id] = message
                self.payloads[message.id] = payload


class RunningWorker:
    """serve_model on a thread of its own; a context manager that drains it."""

    def __init__(self, engine: Engine, lanes: int = 2, extra: dict[str, Engine] | None = None) -> None:
        """`extra`: engines of other precisions."""
        self.supervisor, control = ControlChannel.make_pair()
        self.board = Board.create()
        self.batches = CountedBatches()
        self.exit_code: int | None = None
        engines = {"fp32": engine, **(extra or {})}
        limits = PipelineLimits(DecodeLimits(max_bytes=1_000_000, max_pixels=100_000), 50_000, "fp32")
        card = replace(CARD, labels=CARD.labels[: len(engine.classifier[1])])
        pipeline = Pipeline(card, engines, list_policies(), limits)
        costs = {precision: make_costs(view_ms=0.2) for precision in engines}
        model = LoadedModel(engines, costs, pipeline, {"center": 0.2}, "center")
        queue_limits = Limits(lanes, lanes, 50.0, 50.0, 100_000_000)

        def run() -> None:
            self.exit_code = serve_model(model, queue_limits, control, self.board, self.batches)
            control.close()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self._frontends: list[Frontend] = []
        assert isinstance(self.hear(), Ready)

    def connect(self) -> Frontend:
        """A new frontend."""
        frontend = Frontend(self.supervisor, len(self._frontends))
        self._frontends.append(frontend)
        return frontend

    def hear(self) -> object:
        """The worker's next control message; None when it has ended."""
        received = self.supervisor.receive()
        return None if received is None else received[0]

    def drain(self) -> None:
        """Finish everything and end."""
        self.supervisor.send(Drain())

    def wait(self) -> int | None:
        """Its exit code."""
        self._thread.join(TIMEOUT_S)
        return self.exit_code

    def __enter__(self) -> "RunningWorker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.drain()
        self._thread.join(TIMEOUT_S)
        for frontend in self._frontends:
            frontend.socket.close()
        self.supervisor.close()
        self.board.close()
        assert not self._thread.is_alive()
