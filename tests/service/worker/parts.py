"""Small parts for tests of the worker: requests, looks, engines that compute nothing or go wrong."""

import socket
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.engines.base import EngineOutput
from models.views.base import Look
from service.messages import Classify
from service.types import ClassifyOptions, Priority
from service.worker.batcher import Shape
from service.worker.connection import Connection
from service.worker.costs import CostModel, Curve, Measured
from service.worker.request import Request

FAR = 1e9  # a deadline that never comes
CLASSES = 10


class Line:
    """A connection to a frontend, and the frontend's end of it."""

    def __init__(self) -> None:
        self.frontend, end = socket.socketpair()
        self.connection = Connection(end, 0, lambda: None)
        self._next = 0

    def ask(
        self,
        image: bytes = b"",
        *,
        deadline: float = FAR,
        priority: Priority = "interactive",
        is_suspect: bool = False,
        tta: str | None = None,
    ) -> Request:
        """A request that was accepted."""
        self._next += 1
        options = ClassifyOptions(priority=priority, tta=tta)
        message = Classify(self._next, f"r{self._next}", deadline, options, is_suspect)
        request = Request(self.connection, message, image, 0.0)
        self.connection.requests[message.id] = request
        return request

    def cancel(self, request: Request) -> None:
        """Nobody waits for it any more."""
        del self.connection.requests[request.message.id]

    def close(self) -> None:
        """Both ends."""
        self.connection.close()
        self.frontend.close()


def make_look(*shapes: Shape) -> Look:
    """A look at one black view of each shape."""
    return Look(tuple(np.zeros((*shape, 3), np.uint8) for shape in shapes), features=False)


def make_costs(view_ms: float = 1.0, *, wide: float = 1.0, max_views: int = 64) -> CostModel:
    """Every 32 x 32 view costs the same on one core; `wide` times that on all."""
    one = Curve([Measured(1024, view_ms)])
    return CostModel(one, Curve([Measured(1024, view_ms * wide)]), max_views)


class SumEngine:
    """Logits that depend on the view's own pixels alone; `before` may make a call go wrong."""

    def __init__(
        self, before: Callable[[NDArray[np.uint8]], None] = lambda _: None, classes: int = CLASSES
    ) -> None:
        self._classes = classes
        self.calls: list[int] = []
        self.asked_features: list[bool] = []
        self._before = before

    @property
    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A last layer of ones."""
        return np.ones((self._classes, 1), np.float32), np.zeros(self._classes, np.float32)

    def infer(self, views: NDArray[np.uint8], *, features: bool = False, threads: int = 1) -> EngineOutput:
        """The view's mean, times the class's number."""
        self.calls.append(len(views))
        self.asked_features.append(features)
        self._before(views)
        means = views.reshape(len(views), -1).mean(1, dtype=np.float32)
        logits = means[:, None] * np.arange(self._classes, dtype=np.float32) / 255  # [N, K]
        if not features:
            return EngineOutput(logits, None)
        cells = views[:, ::8, ::8, :1].transpose(0, 3, 1, 2)  # [N, 1, h, w]
        return EngineOutput(logits, cells.astype(np.float32))

    def close(self) -> None:
        """Nothing to release."""
