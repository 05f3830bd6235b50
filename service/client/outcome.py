"""What comes back besides a Classification: outcomes of many images, models, and a server out of reach."""

from dataclasses import dataclass
from typing import ClassVar

from service.errors import OverloadError, ServiceError
from service.types import Classification


class ConnectionFailed(OverloadError):
    """The server could not be reached, or the connection broke; the same request may pass later."""

    slug: ClassVar[str] = "connection-failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One of many images: `index` is its place among those given; exactly one of the other two is set."""

    index: int
    classification: Classification | None = None
    error: ServiceError | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model the server answers for. `policies`: the values of `tta` it knows."""

    name: str
    version: int
    is_default: bool
    labels: tuple[str, ...]
    policies: tuple[str, ...]
