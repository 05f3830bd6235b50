"""Serves HTTP on the listening socket: connections of our own, their clock and their drain."""

import asyncio
import logging
import socket
import time

from service.protocols.base import ProtocolContext
from service.protocols.ports import POLL_S, Port
from service.protocols.rest.access import make_admission
from service.protocols.rest.app import make_app
from service.protocols.rest.classify import ClassifyDesk
from service.protocols.rest.connection import HttpConnection
from service.protocols.rest.door import UNKNOWN_ROUTE, Door
from service.protocols.rest.state import HttpState
from service.tls import TlsFiles, find_tls

TICK_S = 1.0
# While stopping, open connections that have nothing to answer are kept this long: a request may be on its
# way, and is answered with `Connection: close` instead of being cut. Busy ones are likelier to send another.
LINGER_S = 0.5
LINGER_BUSY_S = 3.0
BUSY_S = 5.0


class RestServer:
    """Runs `door` on the listening socket `sock` from `start` on, over TLS where `tls` is given."""

    def __init__(
        self,
        context: ProtocolContext,
        sock: socket.socket,
        door: Door,
        tls: TlsFiles | None = None,
        desk: ClassifyDesk | None = None,
    ) -> None:
        """`desk` None: nothing is classified here."""
        self._door, self._desk = door, desk
        self._settings = context.settings
        self._requests = context.metrics.requests
        self._port = Port(sock, self._connect, tls, context.settings.header_timeout_s)
        self._state = HttpState(is_secure=tls is not None)
        self._is_draining = False
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections."""
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are callers' mistakes
        self._state.set_date()
        self._ticker = asyncio.get_running_loop().create_task(self._tick())
        await self._port.open()

    async def drain(self, timeout_s: float) -> None:
        """Accept nothing new, answer what came, then close."""
        assert self._ticker is not None
        self._is_draining = True
        begun = time.monotonic()
        ends = begun + timeout_s
        await self._port.close(ends)
        while (self._state.connections or self._state.tasks) and time.monotonic() < ends:
            self._close_idle(begun)
            await asyncio.sleep(POLL_S)
        for connection in list(self._state.connections):
            connection.stop()
        for task in self._state.tasks:
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)
        for connection in list(self._state.connections):
            connection.shutdown()
        self._ticker.cancel()

    def _close_idle(self, begun: float) -> None:
        """Close the connections that have waited for another request since `begun` for long enough."""
        now = time.monotonic()
        for connection in list(self._state.connections):
            if connection.is_idle():
                was_busy = connection.read_at > begun - BUSY_S
                if now - max(begun, connection.read_at) > (LINGER_BUSY_S if was_busy else LINGER_S):
                    connection.shutdown()

    def _connect(self) -> HttpConnection:
        return HttpConnection(self._state, self._door, self._desk, self._settings, self._count_refused)

    def _count_refused(self, status: int) -> None:
        self._requests.count(UNKNOWN_ROUTE, "http", "", str(status))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._state.set_date()
            if not self._is_draining:
                await self._port.renew()
            now = time.monotonic()
            for connection in list(self._state.connections):
                connection.watch(now)


async def start_rest(context: ProtocolContext, sock: socket.socket) -> RestServer:
    """Serve on the listening socket `sock`."""
    door = Door(context, make_app(context), make_admission(context.gate))
    server = RestServer(context, sock, door, find_tls(context.settings), ClassifyDesk(context, door))
    await server.start()
    return server
