"""Serves the admin routes on their own socket, with the connections, clocks and problems of the REST room."""

import hmac
import socket

from fastapi import Depends, FastAPI, Request

from service.errors import Unauthenticated
from service.protocols.admin.versions import make_router
from service.protocols.base import ProtocolContext
from service.protocols.rest.app import tell_errors
from service.protocols.rest.door import Door
from service.protocols.rest.exchange import Exchange
from service.protocols.rest.server import RestServer


class TokenGuard:
    """Lets a request pass that carries SERVE_ADMIN_TOKEN as its bearer token; raises Unauthenticated."""

    def __init__(self, token: str) -> None:
        self._expected = b"Bearer " + token.encode()

    def __call__(self, request: Request) -> None:
        """In constant time, so that a token cannot be guessed byte by byte."""
        exchange: Exchange = request.scope["exchange"]
        given = exchange.headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, self._expected):
            raise Unauthenticated("send SERVE_ADMIN_TOKEN as the header Authorization: Bearer TOKEN")


async def start_admin(context: ProtocolContext, sock: socket.socket) -> RestServer:
    """Serve on the listening socket `sock`."""
    app = FastAPI(title="ResNet Serve, admin", version="1", docs_url=None, redoc_url=None)
    guard = TokenGuard(context.settings.admin_token)
    app.include_router(make_router(context), dependencies=[Depends(guard)])
    tell_errors(app)
    server = RestServer(context, sock, Door(context, None, app))
    await server.start()
    return server
