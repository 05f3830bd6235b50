"""A frontend process: protocols in front, workers behind, the supervisor's orders from the side.

It never touches a pixel. One event loop serves every protocol; it ends when it is told to drain, or at once
when the supervisor is gone.
"""

import asyncio
import logging
import os
import resource
import socket
import sys
from pathlib import Path

import uvloop

from models.catalog import find_entries
from service import protocols
from service.classifier import Classifier
from service.logs import set_up_logs
from service.messages import (
    ControlMessage,
    Drain,
    Heartbeat,
    ModelsChanged,
    Ready,
    StartFrontend,
    StateChanged,
    WorkerDown,
    WorkerRetiring,
    WorkerUp,
)
from service.metrics import FrontendMetrics
from service.offspring import begin_child
from service.protocols.base import Listener, ProtocolContext, ProtocolEntry, RunningProtocol
from service.settings import Settings
from service.transport import ControlChannel

HEARTBEAT_S = 1.0
# The supervisor counts the same timeout; a frontend ends a little earlier to close its connections itself.
DRAIN_MARGIN_S = 0.5
LISTENERS: tuple[Listener, ...] = ("http", "grpc", "admin")

log = logging.getLogger("frontend")


class Frontend:
    """One frontend from its first message to the end of its drain."""

    def __init__(self, control: ControlChannel, start: StartFrontend, fds: list[int]) -> None:
        self._control = control
        self._settings = Settings.from_json(start.settings)
        self._metrics = FrontendMetrics(Path(start.metrics_dir), start.slot)
        self._sockets = {name: socket.socket(fileno=fd) for name, fd in zip(LISTENERS, fds, strict=True)}
        self._drained = asyncio.Event()
        self._classifier = Classifier(self._settings, self._metrics)

    async def serve(self) -> None:
        """Serve until the supervisor says Drain and what was accepted is answered."""
        loop = asyncio.get_running_loop()
        context = ProtocolContext(self._settings, self._classifier, self._metrics)
        running: list[RunningProtocol] = []
        for entry in find_entries(protocols, "PROTOCOL", ProtocolEntry):
            running.append(await entry.start(context, self._sockets[entry.listener]))
        self._control.set_blocking(False)
        loop.add_reader(self._control.fileno(), self._listen)
        self._say(Ready())
        beating = loop.create_task(self._beat())
        await self._drained.wait()
        timeout_s = max(0.1, self._settings.drain_timeout - DRAIN_MARGIN_S)
        await asyncio.gather(*(one.drain(timeout_s) for one in running))
        beating.cancel()
        loop.remove_reader(self._control.fileno())
        self._classifier.close()

    def _listen(self) -> None:
        while True:
            try:
                received = self._control.receive()
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:  # the supervisor is dead: nobody would restart or stop anything
                os._exit(1)
            self._obey(*received)

    def _obey(self, message: ControlMessage, fds: list[int]) -> None:
        match message:
            case WorkerUp():
                self._classifier.apply(message, socket.socket(fileno=fds[0]))
            case WorkerDown() | WorkerRetiring() | ModelsChanged() | StateChanged():
                self._classifier.apply(message)
            case Drain():
                log.info("draining")
                self._classifier.drain()
                self._drained.set()
            case _:
                log.error("unexpected message", extra={"fields": {"type": type(message).__name__}})

    async def _beat(self) -> None:
        while True:
            self._say(Heartbeat())
            self._classifier.publish()
            await asyncio.sleep(HEARTBEAT_S)

    def _say(self, message: ControlMessage) -> None:
        try:
            self._control.send(message)
        except BlockingIOError:
            return  # the supervisor is busy; the next heartbeat will do
        except OSError:
            os._exit(1)


def run(control: ControlChannel) -> int:
    """The process: reads its first message from `control`, serves, and returns its exit code."""
    begin_child()
    received = control.receive()
    if received is None:
        return 1
    start, fds = received
    if not isinstance(start, StartFrontend):
        raise TypeError(f"a frontend starts with StartFrontend, not {type(start).__name__}")
    settings = Settings.from_json(start.settings)
    set_up_logs(f"frontend-{start.slot}", settings.log_format, settings.log_level, sys.stdout)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def serve() -> None:
        await Frontend(control, start, fds).serve()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    return 0
