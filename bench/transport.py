"""How many images a second a worker can take in and answer if computing is free: `python -m bench.transport`.

The real worker's threads, queue, decoder and frames around an engine that returns zeros, so that what is
measured is everything that is not the network. Beside it: a process that only echoes.
"""

import sys

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # ships stubs without py.typed
from numpy.typing import NDArray

from bench.frames import WorkerProcess, measure_echo
from models.card import ModelCard, PolicyCard, Preprocess, Provenance
from models.decode import DecodeLimits
from models.engines.base import EngineOutput
from models.views.base import Look, Looks, Scores, ViewContext, ViewShape
from service.board import Board
from service.logs import set_up_logs
from service.transport import ControlChannel
from service.types import ClassifyOptions
from service.worker.costs import CostModel, Curve, Measured
from service.worker.pipeline import Pipeline, PipelineLimits
from service.worker.queue import Limits
from service.worker.serving import LoadedModel, serve_model

CLASSES = 10
SIDE = 32
THREADS = 2
SECONDS = 3.0


class NullEngine:
    """Computes nothing."""

    classifier = (np.zeros((CLASSES, 1), np.float32), np.zeros(CLASSES, np.float32))

    def infer(self, views: NDArray[np.uint8], *, features: bool = False, threads: int = 1) -> EngineOutput:
        """Zeros."""
        return EngineOutput(np.zeros((len(views), CLASSES), np.float32), None)

    def close(self) -> None:
        """Nothing to release."""


class WholeImage:
    """The cheapest policy there can be: the image is the view."""

    name = "center"
    takes_scales = False
    looks_again = False

    def shapes(self, height: int, width: int, context: ViewContext) -> tuple[ViewShape, ...]:
        """One view of the image's size."""
        return (ViewShape(1, height, width),)

    def cost(self, height: int, width: int, context: ViewContext) -> float:
        """One view."""
        return 1.0

    def look(self, image: NDArray[np.uint8], context: ViewContext) -> Looks:
        """One look at it."""
        (output,) = yield Look((image,), features=False)
        weights = np.exp(output.logits - output.logits.max())
        return Scores(output.logits, weights / weights.sum(), 1)


class NoMetrics:
    """Counts nothing."""

    def count_batch(self, views: int, compute_s: float) -> None:
        """Nothing."""


def run_worker(control: ControlChannel) -> int:
    """The worker process with its null engine."""
    set_up_logs("worker", "text", "warning")
    card = ModelCard(
        name="null",
        version=1,
        architecture="none",
        labels=tuple(str(index) for index in range(CLASSES)),
        preprocess=Preprocess(SIDE, SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        window=8,
        provenance=Provenance("trained", "2026-01-01T00:00:00Z"),
        policies={"center": PolicyCard()},
    )
    curve = Curve([Measured(SIDE * SIDE, 0.001)])
    costs = {"fp32": CostModel(curve, curve, 64)}
    limits = PipelineLimits(DecodeLimits(), 4_000_000, "fp32")
    engines = {"fp32": NullEngine()}
    pipeline = Pipeline(card, engines, {"center": WholeImage()}, limits)
    model = LoadedModel(engines, costs, pipeline, {"center": 0.01}, "center")
    return serve_model(
        model, Limits(THREADS, THREADS, 50.0, 50.0, 1_000_000_000), control, Board.create(), NoMetrics()
    )


def main() -> int:
    """Measure, or be the worker."""
    if len(sys.argv) > 1:
        return run_worker(ControlChannel.from_fd(int(sys.argv[1])))
    random = np.random.default_rng(0)
    jpeg: bytes = simplejpeg.encode_jpeg(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8), quality=75)
    print(f"JPEG of {len(jpeg)} bytes, {THREADS} lanes, answers per second")
    with WorkerProcess(["-m", "bench.transport"]) as worker:
        worker.drive([jpeg], ClassifyOptions(), 8, 1.0)
        for concurrency in (1, 8, 32):
            drive = worker.drive([jpeg], ClassifyOptions(), concurrency, SECONDS)
            echo = measure_echo(jpeg, concurrency, 1.0)
            print(
                f"c={concurrency:3}  worker {drive.rate_per_s:7.0f}  p50 {drive.p50_ms:.2f} ms  "
                f"p99 {drive.p99_ms:.2f} ms  failures {drive.failures}  bare echo {echo:7.0f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
