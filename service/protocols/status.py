"""ONE table: what each error is on each protocol. HTTP statuses of RFC 9110/6585, gRPC's code names."""

from dataclasses import dataclass

from service.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Status:
    """`http`: status code; `grpc`: name in grpc.StatusCode; `title`: RFC 9457 title."""

    http: int
    grpc: str
    title: str


STATUS: dict[str, Status] = {
    "bad-request": Status(400, "INVALID_ARGUMENT", "Not a valid request"),
    "unauthenticated": Status(401, "UNAUTHENTICATED", "A valid API key is needed"),
    "forbidden": Status(403, "PERMISSION_DENIED", "The API key does not allow this"),
    "not-found": Status(404, "NOT_FOUND", "No such resource"),
    "unknown-model": Status(404, "NOT_FOUND", "No such model"),
    "method-not-allowed": Status(405, "UNIMPLEMENTED", "Method not allowed"),
    "request-timeout": Status(408, "DEADLINE_EXCEEDED", "The request arrived too slowly"),
    "conflict": Status(409, "ALREADY_EXISTS", "Conflicts with what is there"),
    "too-large": Status(413, "INVALID_ARGUMENT", "Too large"),
    "unsupported-format": Status(415, "INVALID_ARGUMENT", "Not an accepted image format"),
    "broken-image": Status(422, "INVALID_ARGUMENT", "The image cannot be decoded"),
    "poison-image": Status(422, "INVALID_ARGUMENT", "The image crashes the decoder"),
    "unusable-version": Status(422, "INVALID_ARGUMENT", "Not a usable model version"),
    "rate-limited": Status(429, "RESOURCE_EXHAUSTED", "Over the rate limit"),
    "internal": Status(500, "INTERNAL", "Internal error"),
    "overloaded": Status(503, "RESOURCE_EXHAUSTED", "Overloaded"),
    "draining": Status(503, "UNAVAILABLE", "Stopping"),
    "no-worker": Status(503, "RESOURCE_EXHAUSTED", "No worker is ready"),
    "deadline-passed": Status(504, "DEADLINE_EXCEEDED", "The deadline passed"),
    "storage-full": Status(507, "RESOURCE_EXHAUSTED", "Storage is full"),
}


def find_status(error: ServiceError) -> Status:
    """The table's row for `error`."""
    return STATUS[error.slug]
