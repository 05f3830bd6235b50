"""HTTP: a FastAPI app with a plain-ASGI hot path in front of it, both documented in one place."""

from service.protocols.base import ProtocolEntry
from service.protocols.rest.server import start_rest

PROTOCOL = ProtocolEntry("http", "http", start_rest)
