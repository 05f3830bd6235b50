"""The supervisor's orders to a process that sends work to workers: a frontend, or the job runner.

It hears of workers and models, says that it lives, and ends at once when the supervisor is gone.
"""

import asyncio
import logging
import os
import socket

from service.classifier import Classifier
from service.messages import (
    ControlMessage,
    Drain,
    Heartbeat,
    ModelsChanged,
    Ready,
    StateChanged,
    WorkerDown,
    WorkerRetiring,
    WorkerUp,
)
from service.transport import ControlChannel

HEARTBEAT_S = 1.0

log = logging.getLogger(__name__)


class Orders:
    """From `start` on, on the running event loop; `wait_drain` returns when the supervisor says Drain."""

    def __init__(self, control: ControlChannel, classifier: Classifier) -> None:
        self._control, self._classifier = control, classifier
        self._loop = asyncio.get_running_loop()
        self._drained = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Say that this process serves, and listen."""
        self._control.set_blocking(False)
        self._loop.add_reader(self._control.fileno(), self._listen)
        self._say(Ready())
        self._beating = self._loop.create_task(self._beat())

    async def wait_drain(self) -> None:
        """Until the service stops."""
        await self._drained.wait()

    def stop(self) -> None:
        """Neither listen nor beat any more."""
        if self._beating is not None:
            self._beating.cancel()
        self._loop.remove_reader(self._control.fileno())

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
