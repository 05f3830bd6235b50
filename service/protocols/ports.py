"""A listening socket that frontends share, with its certificates: opened, renewed and closed in one way."""

import asyncio
import socket
import time
from collections.abc import Callable

from service.listening import BACKLOG, is_readable, turn_away
from service.tls import Certificates, TlsFiles

SHUTDOWN_S = 5.0  # for a TLS caller to say goodbye
POLL_S = 0.02
# The longest that the opening packets of a connection are under way.
HANDSHAKE_S = 0.1


class Port:
    """Makes a protocol for each connection; `tls` None: connections are not encrypted."""

    def __init__(
        self,
        sock: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        tls: TlsFiles | None,
        handshake_timeout_s: float,
    ) -> None:
        self._socket, self._make_protocol, self._tls = sock, make_protocol, tls
        self._handshake_timeout_s = handshake_timeout_s
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Accept connections."""
        self._server = await self._listen(None if self._tls is None else self._tls.read())

    async def renew(self) -> None:
        """Where the certificates have changed listen anew, on a duplicate of the socket: nobody is turned
        away, open connections stay.
        """
        renewed = None if self._tls is None else self._tls.read_changed()
        if renewed is None or self._server is None:
            return
        old, self._socket = self._server, self._socket.dup()
        self._server = await self._listen(renewed)
        old.close()

    async def close(self, ends: float) -> None:
        """Accept nothing new, but what has begun to connect, until monotonic `ends`."""
        server, self._server = self._server, None
        if server is None:
            return
        turn_away(self._socket)
        await asyncio.sleep(HANDSHAKE_S)
        while is_readable(self._socket.fileno()) and time.monotonic() < ends:  # noqa: ASYNC110  # no event
            await asyncio.sleep(POLL_S)
        server.close()

    async def _listen(self, certificates: Certificates | None) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        # The loop listens anew: with its own backlog, of 100, a burst of connections overflows it.
        if certificates is None:
            return await loop.create_server(self._make_protocol, sock=self._socket, backlog=BACKLOG)
        return await loop.create_server(
            self._make_protocol,
            sock=self._socket,
            backlog=BACKLOG,
            ssl=certificates.context,
            ssl_handshake_timeout=self._handshake_timeout_s,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )
