"""A frontend process: protocols in front, workers behind, the supervisor's orders from the side.

It never touches a pixel. One event loop serves every protocol; it ends when it is told to drain, or at once
when the supervisor is gone.
"""

import asyncio
import gc
import socket
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from models.catalog import find_entries
from service import protocols
from service.access.gate import Gate
from service.access.keyring import open_keyring
from service.access.rates import RateTable
from service.classifier import Classifier
from service.descriptors import fit_connections, raise_descriptor_limit
from service.logs import gather_lines, set_up_logs
from service.messages import StartFrontend
from service.metrics import FrontendMetrics
from service.offspring import begin_child
from service.orders import Orders
from service.protocols.base import Listener, ProtocolContext, ProtocolEntry, RunningProtocol
from service.settings import Settings
from service.transport import ControlChannel

# The supervisor counts the same timeout; a frontend ends a little earlier to close its connections itself.
DRAIN_MARGIN_S = 0.5
# A file's times and size cost microseconds to ask for; a revoked key is refused this much later.
KEYS_POLL_S = 1.0
LISTENERS: tuple[Listener, ...] = ("http", "grpc", "admin")


class Frontend:
    """One frontend from its first message to the end of its drain."""

    def __init__(
        self, control: ControlChannel, start: StartFrontend, settings: Settings, fds: list[int]
    ) -> None:
        """`settings`: those of `start`, with what this process cannot hold cut down."""
        self._settings = settings
        self._metrics = FrontendMetrics(
            Path(start.metrics_dir), start.slot, asyncio.get_running_loop().call_soon
        )
        # The last one, admin, is not there while that port is closed.
        self._sockets = {name: socket.socket(fileno=fd) for name, fd in zip(LISTENERS, fds, strict=False)}
        keyring = open_keyring(self._settings.api_keys)
        is_shared = self._settings.frontends > 1
        table = Path(start.metrics_dir) / "rates"
        rates = RateTable(table, is_shared=is_shared) if keyring is not None else None
        self._gate = Gate(keyring, self._settings.admin_token, rates)
        self._classifier = Classifier(self._settings, self._metrics, self._gate)
        self._orders = Orders(control, self._classifier)

    async def serve(self) -> None:
        """Serve until the supervisor says Drain and what was accepted is answered."""
        context = ProtocolContext(self._settings, self._classifier, self._metrics, self._gate)
        running: list[RunningProtocol] = []
        for entry in find_entries(protocols, "PROTOCOL", ProtocolEntry):
            if entry.listener in self._sockets:
                running.append(await entry.start(context, self._sockets[entry.listener]))
        gc.collect()
        gc.freeze()  # what is loaded stays: later collections need not look at it
        self._orders.start()
        watching = asyncio.create_task(self._watch_keys())
        await self._orders.wait_drain()
        await asyncio.sleep(self._settings.drain_delay)
        timeout_s = max(0.1, self._settings.drain_timeout - DRAIN_MARGIN_S)
        await asyncio.gather(*(one.drain(timeout_s) for one in running))
        watching.cancel()
        self._orders.stop()
        self._classifier.close()

    async def _watch_keys(self) -> None:
        keyring = self._gate.keyring
        while keyring is not None:
            self._metrics.access.set_keys(len(keyring.keys), is_current=keyring.is_current)
            await asyncio.sleep(KEYS_POLL_S)
            keyring.refresh()


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
    lines = set_up_logs(f"frontend-{start.slot}", settings.log_format, settings.log_level, sys.stdout)
    connections = fit_connections(settings.max_connections, raise_descriptor_limit())
    settings = replace(settings, max_connections=connections)

    async def serve() -> None:
        gather_lines(lines, asyncio.get_running_loop().call_soon)
        await Frontend(control, start, settings, fds).serve()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    return 0
