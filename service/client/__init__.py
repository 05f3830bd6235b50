"""The Python client: `Client` for plain code, `AsyncClient` for asyncio, over HTTP or gRPC.

    from service.client import Client
    with Client("http://localhost:8080") as client:
        print(client.classify("cat.jpg").predictions[0].label)

Answers are the types of service/types.py, errors those of service/errors.py; nothing of the server is
imported.
"""

from service.client.client import AsyncClient, Client
from service.client.images import ImageSource
from service.client.outcome import ConnectionFailed, ModelInfo, Outcome
from service.client.tls import ClientTls

__all__ = ["AsyncClient", "Client", "ClientTls", "ConnectionFailed", "ImageSource", "ModelInfo", "Outcome"]
