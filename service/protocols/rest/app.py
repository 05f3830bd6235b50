"""The FastAPI app: every route but the hot path, and the OpenAPI document of all of them."""

from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from models.catalog import find_modules
from service.errors import BadRequest, ServiceError
from service.protocols.base import ProtocolContext
from service.protocols.options import MIN_TIMEOUT_S
from service.protocols.rest import routes
from service.protocols.rest.classify import describe_parameters
from service.protocols.rest.dialects import encode_error
from service.protocols.rest.document import make_document
from service.protocols.rest.exchange import CLASSIFY_PATH, Exchange
from service.protocols.rest.problems import translate_status
from service.protocols.rest.schemas import ClassificationBody, Problem

DESCRIPTION = """One picture in, one answer out, from ResNet image classifiers.

Every error is an RFC 9457 problem document whose `type` is a stable slug. `X-Request-Id` and
`Request-Timeout` (seconds) are taken from the request; `X-Request-Id` and `Server-Timing` come back.
"""
# The statuses /v1/classify can end with; the table of errors says what each means.
CLASSIFY_STATUSES = (400, 404, 408, 413, 415, 422, 429, 500, 503, 504)


def make_app(context: ProtocolContext) -> FastAPI:
    """The app with every router that is found in rest/routes."""
    app = FastAPI(
        title="ResNet Serve",
        version="1",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_classify(app)
    for module in find_modules(routes):
        make_router: Callable[[ProtocolContext], APIRouter] = module.make_router
        app.include_router(make_router(context))
    document = lru_cache(maxsize=1)(lambda: make_document(app, needs_keys=not context.gate.is_open))
    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to change the document
    tell_errors(app)
    return app


def tell_errors(app: FastAPI) -> None:
    """Every error of `app` becomes the document that its path speaks."""
    for error in (ServiceError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, _tell_error)


def _add_classify(app: FastAPI) -> None:
    """The document's entry, and the answer to every other method: POST is answered before it gets here."""

    async def classify(request: Request) -> Response:
        raise NotImplementedError(f"{CLASSIFY_PATH} is answered by rest/classify.py")

    app.add_api_route(
        CLASSIFY_PATH,
        classify,
        methods=["POST"],
        tags=["classify"],
        summary="What is in this picture?",
        response_model=None,
        responses=_describe_responses(),
        openapi_extra={
            "parameters": [*describe_parameters(), *_describe_headers()],
            "requestBody": _describe_body(),
        },
    )


def _describe_responses() -> dict[int | str, dict[str, Any]]:
    problems: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in CLASSIFY_STATUSES}
    return {200: {"model": ClassificationBody, "description": "the classes, best first"}, **problems}


def _describe_headers() -> list[dict[str, Any]]:
    return [
        {
            "name": "X-Request-Id",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},  # no pattern: none of them is refused
            "description": "returned and logged if 1 to 64 of A-Z a-z 0-9 . _ -; else a new one is made",
        },
        {
            "name": "Request-Timeout",
            "in": "header",
            "required": False,
            "schema": {"type": "number", "exclusiveMinimum": 0},
            "description": f"seconds after which nobody waits for the answer, at least {MIN_TIMEOUT_S}",
        },
    ]


def _describe_body() -> dict[str, Any]:
    image = {
        "type": "string",
        "format": "binary",
        "minLength": 1,
        "contentMediaType": "application/octet-stream",
    }
    form = {"type": "object", "required": ["img"], "properties": {"img": image}}
    return {
        "required": True,
        "description": "a form with the file field `img`, or the image itself",
        "content": {
            "multipart/form-data": {"schema": form},
            "image/*": {"schema": image},
            "application/octet-stream": {"schema": image},
        },
    }


async def _tell_error(request: Request, error: Exception) -> Response:
    exchange: Exchange = request.scope["exchange"]
    status, headers, body = encode_error(_translate(error, exchange.path), exchange)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append((b"allow", ", ".join(_list_methods(request)).encode()))
    response = Response(body, status)
    response.raw_headers = headers
    return response


def _list_methods(request: Request) -> list[str]:
    """Of every route with this path; the framework's own answer knows of the first one alone."""
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods)


def _translate(error: Exception, path: str) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return BadRequest(f"{field}: {first['msg']}", field)
    assert isinstance(error, HTTPException)
    return translate_status(error.status_code, path)
