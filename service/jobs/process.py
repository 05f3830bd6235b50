"""The job runner's process: the same Classifier as a frontend's, and durable jobs instead of protocols."""

import asyncio
import gc
import sys
from pathlib import Path

import uvloop

from service.classifier import Classifier
from service.jobs.runner import JobRunner
from service.logs import set_up_logs
from service.messages import StartJobs
from service.metrics import FrontendMetrics
from service.offspring import begin_child
from service.orders import Orders
from service.settings import Settings
from service.transport import ControlChannel


async def serve(control: ControlChannel, start: StartJobs) -> None:
    """Run jobs until the supervisor says Drain."""
    settings = Settings.from_json(start.settings)
    defer = asyncio.get_running_loop().call_soon
    metrics = FrontendMetrics(Path(start.metrics_dir), start.slot, defer)
    classifier = Classifier(settings, metrics)
    orders = Orders(control, classifier)
    orders.start()
    gc.collect()
    gc.freeze()  # what is loaded stays: later collections need not look at it
    running = asyncio.create_task(JobRunner(settings, classifier).run())
    draining = asyncio.create_task(orders.wait_drain())
    await asyncio.wait([running, draining], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    orders.stop()
    classifier.close()


def run(control: ControlChannel) -> int:
    """The process: reads its first message from `control`, serves, and returns its exit code."""
    begin_child()
    received = control.receive()
    if received is None:
        return 1
    start, _ = received
    if not isinstance(start, StartJobs):
        raise TypeError(f"the job runner starts with StartJobs, not {type(start).__name__}")
    settings = Settings.from_json(start.settings)
    set_up_logs("jobs", settings.log_format, settings.log_level, sys.stdout)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(control, start))
    return 0
