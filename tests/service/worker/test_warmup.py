"""What warm-up runs, and what it concludes. No time is asserted."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.engines.base import OutOfMemory
from service.worker.warmup import measure_costs
from tests.service.worker.parts import SumEngine

CROP_PX = 16


def test_larger_batches_are_tried_up_to_the_most_views() -> None:
    engine = SumEngine()
    measure_costs(engine, CROP_PX, threads=1, budget_ms=1e9, max_views=4)
    assert set(engine.calls) == {1, 2, 4}


def test_no_batch_is_tried_beyond_the_budget() -> None:
    engine = SumEngine()
    costs = measure_costs(engine, CROP_PX, threads=1, budget_ms=1e-9, max_views=64)
    assert set(engine.calls) == {1}
    assert costs.fit((CROP_PX, CROP_PX), 1e-9) == 1


def test_size_the_device_has_no_memory_for_ends_the_measuring() -> None:
    def refuse(views: NDArray[np.uint8]) -> None:
        if len(views) > 2:
            raise OutOfMemory("no room")

    engine = SumEngine(refuse)
    measure_costs(engine, CROP_PX, threads=1, budget_ms=1e9, max_views=64)
    assert max(engine.calls) <= 4


def test_engine_without_memory_for_one_view_is_refused() -> None:
    def refuse(views: NDArray[np.uint8]) -> None:
        raise OutOfMemory("no room")

    with pytest.raises(OutOfMemory):
        measure_costs(SumEngine(refuse), CROP_PX, threads=1, budget_ms=1e9, max_views=64)
