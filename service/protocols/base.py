"""What a protocol is to a frontend: a name, a listening socket, and something to start and drain.

A protocol is one module here with a PROTOCOL; the frontend finds it, nothing is registered.
"""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from service.access.gate import Gate
from service.classifier import Classifier
from service.metrics import FrontendMetrics
from service.settings import Settings

Listener = Literal["http", "grpc", "admin"]


@dataclass(frozen=True, slots=True)
class ProtocolContext:
    """What every protocol is given, on the frontend's event loop."""

    settings: Settings
    classifier: Classifier
    metrics: FrontendMetrics
    gate: Gate


class RunningProtocol(Protocol):
    """A protocol that is serving."""

    async def drain(self, timeout_s: float) -> None:
        """Accept nothing new, finish what was accepted within `timeout_s`, then drop the rest and return."""
        ...


@dataclass(frozen=True, slots=True)
class ProtocolEntry:
    """A module's PROTOCOL: `start` serves on the bound socket of `listener` and returns when it does."""

    name: str
    listener: Listener
    start: Callable[[ProtocolContext, socket.socket], Awaitable[RunningProtocol]]
