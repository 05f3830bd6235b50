"""Serves HTTP on the listening socket: uvicorn's parser and writer, our own accept, clock and drain."""

import asyncio
import email.utils
import logging
import socket
import time
from collections.abc import Callable

from uvicorn.config import Config
from uvicorn.server import ServerState

from service.listening import is_readable, turn_away
from service.protocols.base import ProtocolContext
from service.protocols.rest.access import make_admission
from service.protocols.rest.app import make_app
from service.protocols.rest.classify import ClassifyHandler
from service.protocols.rest.connection import HttpConnection
from service.protocols.rest.door import UNKNOWN_ROUTE, Door

TICK_S = 1.0
POLL_S = 0.02
# The longest that the opening packets of a connection are under way.
HANDSHAKE_S = 0.1
# While stopping, open connections that have nothing to answer are kept this long: a request may be on its
# way, and is answered with `Connection: close` instead of being cut. Busy ones are likelier to send another.
LINGER_S = 0.5
LINGER_BUSY_S = 3.0
BUSY_S = 5.0


class RestServer:
    """Runs `door` on the listening socket `sock` from `start` on."""

    def __init__(self, context: ProtocolContext, sock: socket.socket, door: Door) -> None:
        self._settings = context.settings
        self._requests = context.metrics.requests
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._state = ServerState()
        self._config = Config(
            app=door,
            http=HttpConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(context.settings.keepalive_timeout_s),
        )
        self._config.load()
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections."""
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are callers' mistakes
        self._set_date()
        self._ticker = self._loop.create_task(self._tick())
        self._server = await self._loop.create_server(self._connect, sock=self._socket)

    async def drain(self, timeout_s: float) -> None:
        """Accept nothing new, answer what came, then close."""
        assert self._server is not None
        assert self._ticker is not None
        begun = time.monotonic()
        ends = begun + timeout_s
        turn_away(self._socket)
        await asyncio.sleep(HANDSHAKE_S)
        await self._wait(lambda: not is_readable(self._socket.fileno()), ends)
        self._server.close()
        while (self._state.connections or self._state.tasks) and time.monotonic() < ends:
            self._close_idle(begun)
            await asyncio.sleep(POLL_S)
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
            if isinstance(connection, HttpConnection) and connection.is_idle():
                was_busy = connection.read_at > begun - BUSY_S
                if now - max(begun, connection.read_at) > (LINGER_BUSY_S if was_busy else LINGER_S):
                    connection.shutdown()

    def _connect(self) -> HttpConnection:
        return HttpConnection(
            self._config,
            self._state,
            {},
            settings=self._settings,
            loop=self._loop,
            count_refused=self._count_refused,
        )

    def _count_refused(self, status: int) -> None:
        self._requests.count(UNKNOWN_ROUTE, "http", "", str(status))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._set_date()
            now = time.monotonic()
            for connection in list(self._state.connections):
                if isinstance(connection, HttpConnection):
                    connection.watch(now)

    def _set_date(self) -> None:
        date = email.utils.formatdate(usegmt=True).encode()
        self._state.default_headers = [(b"date", date), (b"x-content-type-options", b"nosniff")]

    async def _wait(self, condition: Callable[[], bool], until: float) -> None:
        while not condition() and time.monotonic() < until:  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(POLL_S)


async def start_rest(context: ProtocolContext, sock: socket.socket) -> RestServer:
    """Serve on the listening socket `sock`."""
    handler = ClassifyHandler(context)
    server = RestServer(
        context, sock, Door(context, handler, make_app(context, handler), make_admission(context.gate))
    )
    await server.start()
    return server
