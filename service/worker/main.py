"""A worker process, from its first message to its exit code."""

import logging
import sys
from pathlib import Path

from models.engines.opening import load_libraries
from service.board import Board
from service.logs import set_up_logs
from service.messages import Prepare, Refused, StartWorker
from service.metrics import open_worker_metrics
from service.offspring import begin_child
from service.settings import Settings
from service.transport import ControlChannel
from service.worker.loading import CPU, VersionRefused, load_model
from service.worker.queue import Limits
from service.worker.serving import EXIT_ORPHANED, serve_model

EXIT_REFUSED = 4

log = logging.getLogger("worker")


def run(control: ControlChannel) -> int:
    """Load the version that the first message names, and serve it to the end."""
    begin_child()
    received = control.receive()
    if received is not None and isinstance(received[0], Prepare):
        load_libraries(received[0].device)
        received = control.receive()
    if received is None:
        return EXIT_ORPHANED
    start, fds = received
    if not isinstance(start, StartWorker):
        raise TypeError(f"a worker's first message is StartWorker, not {type(start).__name__}")
    settings = Settings.from_json(start.settings)
    set_up_logs(f"worker-{start.slot}", settings.log_format, settings.log_level, sys.stdout)
    path = Path(start.version_path)
    try:
        model = load_model(path, start.device, start.threads, settings)
    except VersionRefused as err:
        control.send(Refused(str(err)))
        return EXIT_REFUSED
    metrics = open_worker_metrics(Path(start.metrics_dir), start.slot, path.parent.name)
    return serve_model(model, _limits(start, settings), control, Board(fds[0]), metrics)


def _limits(start: StartWorker, settings: Settings) -> Limits:
    return Limits(
        lanes=start.threads,
        batches=start.threads if start.device == CPU else 2,  # one is copied while one computes
        batch_budget_ms=settings.batch_budget_ms,
        bulk_slice_ms=settings.bulk_slice_ms,
        max_decode_bytes=settings.max_decode_bytes,
    )
