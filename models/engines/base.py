"""The seam between whoever has views and whatever computes them. Engines know nothing of requests."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class EngineError(Exception):
    """The engine could not compute a batch; the batch fails, the engine may be used again."""


class OutOfMemory(EngineError):
    """The device had no room for this batch; a smaller one may pass."""


class DeviceLost(EngineError):
    """The device is in a state no further call survives; the process must be replaced."""


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """`logits`: float32 [N, K]. `features`: the last feature map, float32 [N, C, h, w], if asked for.

    `members`: of an ensemble, what each of its M members gave, float32 [N, M, K]; `logits` is their mean.
    """

    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None
    members: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an engine runs and how. `device`: cpu or cuda:<n>; `threads`: cores a call may use at most."""

    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1


class Engine(Protocol):
    """One model version on one device at one precision."""

    def infer(self, views: NDArray[np.uint8], *, features: bool = False, threads: int = 1) -> EngineOutput:
        """views: uint8 [N, H, W, 3] of any H and W; raises EngineError. Several threads may call it.

        `threads`: how many cores this call may use, 1 or all of the worker's: all is best for a lone
        batch, 1 when every core has a batch of its own. The answer is bitwise the same (ONNX Runtime).
        """
        ...

    @property
    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The last layer: weight float32 [K, C] and bias float32 [K]."""
        ...

    def close(self) -> None:
        """Release the device's memory."""
        ...
