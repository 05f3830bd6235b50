"""A loaded model at work: queue, lanes and IO thread put together, from Ready to the end."""

import gc
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from models.engines.base import Engine
from service.board import Board
from service.messages import Ready
from service.transport import ControlChannel
from service.worker.backlog import Backlog
from service.worker.compute import Computer
from service.worker.costs import CostModel
from service.worker.lanes import BatchCounter, Lane, Workshop
from service.worker.pipeline import Pipeline
from service.worker.queue import Limits, WorkQueue
from service.worker.reception import End, Reception

LAST_WRITE_S = 5.0  # for frontends that are slow to read their last answers
EXIT_ORPHANED = 3

log = logging.getLogger("worker")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model version that passed its checks, warmed up.

    `engines` and `costs` by precision; `policy_ms`: milliseconds of one core for one image, by policy.
    """

    engines: Mapping[str, Engine]
    costs: dict[str, CostModel]
    pipeline: Pipeline
    policy_ms: dict[str, float]
    default_tta: str


def serve_model(
    model: LoadedModel, limits: Limits, control: ControlChannel, board: Board, metrics: BatchCounter
) -> int:
    """Say Ready, serve until drained or orphaned; returns the exit code."""
    queue = WorkQueue(limits, model.costs, Backlog(model.policy_ms, model.default_tta, limits.lanes))
    # What one image adds to the wait of the next: its cost spread over the lanes.
    cost_ms = {tta: ms / limits.lanes for tta, ms in model.policy_ms.items()}
    lanes: list[Lane] = []
    reception = Reception(control, queue, cost_ms, lambda: sum(lane.answers for lane in lanes))
    queue.wake = reception.intake.wake
    computer = Computer(model.engines, model.costs)
    shop = Workshop(queue, model.pipeline, computer, board, metrics, reception.intake)
    lanes.extend(Lane(index, shop) for index in range(limits.lanes))
    gc.collect()
    gc.freeze()  # what is loaded stays: later collections need not look at it
    for lane in lanes:
        lane.start()
    control.send(Ready(cost_ms))
    end = reception.run()
    log.info("ended", extra={"fields": {"why": end.value}})
    if end is End.ORPHANED:
        return EXIT_ORPHANED
    queue.stop()
    for lane in lanes:
        lane.join()
    reception.flush(LAST_WRITE_S)
    reception.intake.close()
    model.pipeline.close()
    for engine in model.engines.values():
        engine.close()
    return 0
