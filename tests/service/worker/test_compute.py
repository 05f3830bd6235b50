"""What a batch leaves with its requests."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from service.worker.batcher import Batch
from service.worker.compute import Computer
from tests.service.worker.parts import Line, SumEngine, make_costs, make_look


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def test_batches_that_run_at_the_same_time_are_counted_once(line: Line) -> None:
    both_run = threading.Barrier(2, timeout=30)

    def compute(_: NDArray[np.uint8]) -> None:
        both_run.wait()
        time.sleep(0.02)  # the time of computing, which is what is told
        both_run.wait()

    computer = Computer({"fp32": SumEngine(compute)}, {"fp32": make_costs()})
    request = line.ask()
    request.expect(make_look((8, 8), (8, 8)))
    began = time.monotonic()
    parts = [Batch("fp32", (8, 8), [(request, index)], threads=1, predicted_ms=1.0) for index in range(2)]
    lanes = [threading.Thread(target=computer.run, args=(part,)) for part in parts]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    now = time.monotonic()
    assert request.missing == 0
    assert 20 <= request.read_infer_ms(now) <= (now - began) * 1000


def test_batch_that_still_runs_counts_until_now(line: Line) -> None:
    request = line.ask()
    request.start_batch(10.0)
    request.start_batch(11.0)
    request.end_batch(12.0)
    assert request.read_infer_ms(13.0) == 3000.0
    request.end_batch(14.0)
    assert request.read_infer_ms(99.0) == 4000.0
