"""Runs an engine at the sizes it will see, which warms it up and measures what a batch costs."""

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.engines.base import Engine, OutOfMemory
from service.worker.costs import CostModel, Curve, Measured

REPEATS = 3  # the best counts: other processes only ever add time
PATIENCE_MS = 30.0  # what takes longer is measured once, a service should be up within two seconds
SEED = 0


def measure_costs(engine: Engine, crop_px: int, threads: int, budget_ms: float, max_views: int) -> CostModel:
    """The cost model of `engine` on `threads` cores, from batches of the native crop up to `budget_ms`."""
    narrow = Curve(list(_measure(engine, crop_px, 1, budget_ms, max_views)))
    wide = narrow if threads == 1 else Curve(list(_measure(engine, crop_px, threads, budget_ms, max_views)))
    return CostModel(narrow, wide, max_views)


def _measure(
    engine: Engine, crop_px: int, threads: int, budget_ms: float, max_views: int
) -> Iterator[Measured]:
    random = np.random.default_rng(SEED)
    engine.infer(random.integers(0, 256, (1, crop_px, crop_px, 3), np.uint8), threads=threads)
    count, ms = 1, 0.0
    while count <= max_views and ms <= budget_ms / 2:  # the next would be over it
        views = random.integers(0, 256, (count, crop_px, crop_px, 3), np.uint8)
        try:
            ms = _time_batch(engine, views, threads)
        except OutOfMemory:
            if count == 1:
                raise
            return
        yield Measured(count * crop_px * crop_px, ms)
        count *= 2


def _time_batch(engine: Engine, views: NDArray[np.uint8], threads: int) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        engine.infer(views, threads=threads)
        best = min(best, (time.perf_counter() - started) * 1000)
        if best > PATIENCE_MS:
            break
    return best
