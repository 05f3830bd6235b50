"""Serves the admin routes on their own socket, with the connections, clocks and problems of the REST room."""

import socket

from fastapi import FastAPI

from service.protocols.admin.versions import make_router
from service.protocols.base import ProtocolContext
from service.protocols.rest.app import tell_errors
from service.protocols.rest.door import Door
from service.protocols.rest.exchange import Exchange
from service.protocols.rest.routes import health
from service.protocols.rest.server import RestServer

# Of a caller without certificate or key; for whom loopback can be reached they tell nothing new.
PROBES = frozenset({"/livez", "/readyz"})


async def start_admin(context: ProtocolContext, sock: socket.socket) -> RestServer:
    """Serve on the listening socket `sock`."""
    app = FastAPI(title="ResNet Serve, admin", version="1", docs_url=None, redoc_url=None)
    app.include_router(make_router(context))
    app.include_router(health.make_router(context))
    tell_errors(app)

    def admit(exchange: Exchange) -> str:
        if exchange.path in PROBES:
            return ""
        return context.gate.require_admin(exchange.credential()).id

    server = RestServer(context, sock, Door(context, app, admit))
    await server.start()
    return server
