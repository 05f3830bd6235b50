"""Runs an engine at the sizes it will see, which warms it up and measures what a batch costs."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.engines.base import Engine, OutOfMemory
from service.worker.costs import CostModel, Curve, Measured

REPEATS = 4  # the best counts: other processes only ever add time
PATIENCE_MS = 5.0  # what takes longer is measured twice, a service should be up within two seconds;
LEAST = 2  # the first run at a size also makes room for it, 10 % more for two views of 224 pixels
GAIN = 0.03  # a size that costs less per view by no more than this gains nothing;
ENOUGH = 2  # after so many of them in a row, larger batches cost in proportion
SEED = 0

Clock = Callable[[], float]


def measure_costs(engine: Engine, crop_px: int, threads: int, budget_ms: float, max_views: int) -> CostModel:
    """The cost model of `engine` from batches of the native crop up to `budget_ms`.

    `threads`: the cores of a CPU worker, whose narrow batches are computed on the calling thread, so that its
    own clock tells their cost even on a busy machine (where a stopwatch was found to be off by five times);
    0 for a GPU. Of every core at once one view is measured: larger batches are predicted in proportion,
    until there were some.
    """
    measure = partial(_measure, engine, crop_px=crop_px, budget_ms=budget_ms)
    narrow_clock = time.thread_time if threads else time.perf_counter
    narrow = Curve(list(measure(1, narrow_clock, max_views=max_views)))
    wide = Curve(list(measure(threads, time.perf_counter, max_views=1))) if threads > 1 else narrow
    return CostModel(narrow, wide, max_views)


def _measure(
    engine: Engine, threads: int, clock: Clock, *, crop_px: int, budget_ms: float, max_views: int
) -> Iterator[Measured]:
    random = np.random.default_rng(SEED)
    engine.infer(random.integers(0, 256, (1, crop_px, crop_px, 3), np.uint8), threads=threads)
    count, ms, best, flat = 1, 0.0, float("inf"), 0
    while count <= max_views and ms <= budget_ms / 2 and flat < ENOUGH:  # the next would be over the budget
        views = random.integers(0, 256, (count, crop_px, crop_px, 3), np.uint8)
        try:
            ms = _time_batch(engine, views, threads, clock)
        except OutOfMemory:
            if count == 1:
                raise
            return
        yield Measured(count * crop_px * crop_px, ms)
        flat = flat + 1 if ms / count > (1 - GAIN) * best else 0
        best = min(best, ms / count)
        count *= 2


def _time_batch(engine: Engine, views: NDArray[np.uint8], threads: int, clock: Clock) -> float:
    best = float("inf")
    for run in range(1, REPEATS + 1):
        started = clock()
        engine.infer(views, threads=threads)
        best = min(best, (clock() - started) * 1000)
        if best > PATIENCE_MS and run >= LEAST:
            break
    return best
