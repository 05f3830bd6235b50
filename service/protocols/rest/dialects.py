"""How errors are told by path: problem documents, except where a foreign protocol has a form of its own."""

from typing import Any

import msgspec

from service.errors import Internal, ServiceError
from service.protocols.rest.exchange import Answer, Exchange
from service.protocols.rest.problems import encode_problem
from service.protocols.status import find_status

# TorchServe's names for its exceptions, by HTTP status.
_EXCEPTIONS = {
    400: "BadRequestException",
    404: "ModelNotFoundException",
    405: "MethodNotAllowedException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
    507: "PredictionException",
}


def encode_error(error: ServiceError, exchange: Exchange) -> Answer:
    """Status, headers and body that tell `error` to whoever asked for this path."""
    status, headers, body = encode_problem(error, exchange.request_id)
    told = _describe(error, exchange.path)
    if told is None:
        return status, headers, body
    body = msgspec.json.encode(told)
    kept = [(name, value) for name, value in headers if name not in (b"content-type", b"content-length")]
    return (
        status,
        [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *kept],
        body,
    )


def speaks_problems(path: str) -> bool:
    """Whether errors at `path` are problem documents."""
    return _describe(Internal(""), path) is None


def _describe(error: ServiceError, path: str) -> dict[str, Any] | None:
    if path == "/v2" or path.startswith("/v2/") or path.endswith(":predict"):
        return {"error": error.detail}
    if path.startswith("/predictions/"):
        status = find_status(error).http
        return {
            "code": status,
            "type": _EXCEPTIONS.get(
                status, "InternalServerException" if status == 500 else "ServiceException"
            ),
            "message": error.detail,
        }
    return None
