"""Errors on HTTP: RFC 9457 problem documents, from the one table of protocols/status.py."""

import math
from http import HTTPStatus
from typing import Any

import msgspec

from service.errors import BadRequest, Internal, MethodNotAllowed, NotFound, ServiceError, Unauthenticated
from service.protocols.rest.exchange import Answer
from service.protocols.status import STATUS, find_status

PROBLEM_JSON = b"application/problem+json"


def describe_problem(error: ServiceError, request_id: str) -> dict[str, Any]:
    """The members of the problem document: `type` is the error's slug, stable; `field` where one is wrong."""
    status = find_status(error)
    problem: dict[str, Any] = {
        "type": error.slug,
        "title": status.title,
        "status": status.http,
        "detail": error.detail,
        "request_id": request_id,
    }
    if isinstance(error, BadRequest) and error.field is not None:
        problem["field"] = error.field
    return problem


def encode_problem(error: ServiceError, request_id: str) -> Answer:
    """Status, headers and body of the answer that tells `error`."""
    body = msgspec.json.encode(describe_problem(error, request_id))
    headers = [
        (b"content-type", PROBLEM_JSON),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
    ]
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="resnet-serve"'))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()))
    return find_status(error).http, headers, body


def translate_status(status: int, path: str) -> ServiceError:
    """The error behind a bare HTTP status of the framework's, such as 404 for a path nobody serves."""
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(f"there is nothing at {path[:200]}; /docs lists what there is")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(f"{path[:200]} does not answer this method; /docs lists what it answers")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Internal("something went wrong here; the log has it under this request's id")
    return BadRequest("the request cannot be read")


def list_statuses() -> dict[int, list[str]]:
    """Every HTTP status of an error, with its slugs, for the documentation."""
    found: dict[int, list[str]] = {}
    for slug, status in STATUS.items():
        found.setdefault(status.http, []).append(slug)
    return found
