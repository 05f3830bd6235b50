"""The real engine of that name at a test's command: SIGUSR1 leaves its device room for two views,
SIGUSR2 makes it stand still until the next SIGUSR2.
"""

import importlib.util
import signal
import threading
import time

import numpy as np
from numpy.typing import NDArray

from models import engines
from models.engines.base import Engine, EngineOutput, OutOfMemory, Placement
from models.repository import ModelVersion

ROOM_VIEWS = 2
FIXED_S = 0.003  # processor time of any batch, so that large ones pay and are made

_spec = importlib.util.spec_from_file_location("models.engines._onnx", f"{engines.__path__[-1]}/onnx.py")
assert _spec is not None
assert _spec.loader is not None
_real = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_real)
list_precisions = _real.list_precisions


is_scarce, may_go = threading.Event(), threading.Event()  # of every precision's engine
may_go.set()
signal.signal(signal.SIGUSR1, lambda *_: is_scarce.set())
signal.signal(signal.SIGUSR2, lambda *_: may_go.clear() if may_go.is_set() else may_go.set())


class CommandedEngine:
    """See models.engines.base.Engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The real one's."""
        return self._engine.classifier

    def infer(self, views: NDArray[np.uint8], *, features: bool = False, threads: int = 1) -> EngineOutput:
        """Raises OutOfMemory for more than ROOM_VIEWS views once memory is scarce."""
        if is_scarce.is_set() and len(views) > ROOM_VIEWS:
            raise OutOfMemory(f"{len(views)} views, room for {ROOM_VIEWS}")
        may_go.wait()
        until = time.thread_time() + FIXED_S
        while time.thread_time() < until:
            pass
        return self._engine.infer(views, features=features, threads=threads)

    def close(self) -> None:
        """The real one's."""
        self._engine.close()


def open_engine(version: ModelVersion, placement: Placement) -> CommandedEngine:
    """See models.engines.opening."""
    return CommandedEngine(_real.open_engine(version, placement))
