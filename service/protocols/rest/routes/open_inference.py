"""/v2: the Open Inference Protocol v2 over HTTP, with the extensions that its clients rely on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from service.errors import BadRequest, NoWorker
from service.protocols.base import ProtocolContext
from service.protocols.open_inference import InferCall, find_model, infer, name_model
from service.protocols.open_inference_json import HEADER_LENGTH, encode_answer, parse_body, parse_index
from service.protocols.open_inference_models import (
    describe_config,
    describe_model,
    describe_server,
    describe_statistics,
    list_index,
    list_versions,
)
from service.protocols.options import parse_deadline
from service.protocols.rest.exchange import Connection, Exchange
from service.protocols.rest.intake import limit_base64, limit_raw, read_inflated
from service.protocols.rest.open_inference_schemas import (
    ConfigBody,
    ErrorBody,
    IndexBody,
    InferResponseBody,
    LiveBody,
    MetadataBody,
    ModelReadyBody,
    ReadyBody,
    ServerBody,
    StatisticsBody,
    describe_index_body,
    describe_infer_body,
)

Endpoint = Callable[[str, str], Awaitable[dict[str, Any]]]
MODEL, VERSION = "/models/{name}", "/models/{name}/versions/{version}"
BINARY: dict[str, Any] = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
}
INDEX_STATUSES = (400, 408, 413, 415, 503)
MAX_INDEX_BYTES = 1 << 12
INFER_STATUSES = (400, 404, 408, 413, 415, 422, 429, 500, 503, 504)
# Work on a larger body leaves the event loop to others meanwhile.
INLINE_BYTES = 1 << 18


def make_router(context: ProtocolContext) -> APIRouter:
    """Every route of the protocol that this server answers."""
    router = APIRouter(prefix="/v2", tags=["open inference protocol"])
    _add_server(router, context)
    _add_repository(router, context)
    _add_models(router, context)
    _add_infer(router, context)
    return router


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody} for status in statuses}


def _add_server(router: APIRouter, context: ProtocolContext) -> None:
    @router.get("", response_model=ServerBody, summary="Name, version and extensions of this server")
    async def server() -> dict[str, Any]:
        return describe_server()

    @router.get("/health/live", summary="This process answers")
    async def live() -> LiveBody:
        return LiveBody(live=True)

    @router.get(
        "/health/ready",
        summary="At least one worker is up, and the server is not stopping",
        responses={503: {"model": ReadyBody}},
    )
    async def ready(response: Response) -> ReadyBody:
        is_ready = context.classifier.is_ready
        response.status_code = 200 if is_ready else 503
        return ReadyBody(ready=is_ready)


def _add_repository(router: APIRouter, context: ProtocolContext) -> None:
    @router.post(
        "/repository/index",
        response_model=list[IndexBody],
        responses=_errors(*INDEX_STATUSES),
        summary="Every model version known, and its state",
        openapi_extra=describe_index_body(),
    )
    async def index(request: Request) -> list[dict[str, str]]:
        exchange: Exchange = request.scope["exchange"]
        deadline = parse_deadline(exchange.text(b"request-timeout"), context.settings)
        with context.classifier.reserve(0) as lease:
            asked = parse_index(await read_inflated(request, lease, MAX_INDEX_BYTES, deadline))
        return list_index(context.classifier.list_models(), is_ready_only=asked)


def _add_models(router: APIRouter, context: ProtocolContext) -> None:
    def add(
        path: str, summary: str, model: Any, responses: tuple[int, ...] = (404,)
    ) -> Callable[[Endpoint], Endpoint]:
        def decorate(endpoint: Endpoint) -> Endpoint:
            async def of_any(name: str) -> dict[str, Any]:
                return await endpoint(name, "")

            async def of_one(name: str, version: str) -> dict[str, Any]:
                return await endpoint(name, version)

            for prefix, function in ((MODEL, of_any), (VERSION, of_one)):
                router.add_api_route(
                    f"{prefix}{path}",
                    function,
                    methods=["GET"],
                    response_model=model,
                    responses=_errors(*responses),
                    summary=summary,
                )
            return endpoint

        return decorate

    @router.get("/models/stats", response_model=StatisticsBody, summary="What every model inferred so far")
    async def all_statistics() -> dict[str, Any]:
        models = [one for one in context.classifier.list_models() if one.card]
        return await _read_statistics(context, models)

    @add("/stats", "What was inferred since the service started", StatisticsBody)
    async def statistics(name: str, version: str) -> dict[str, Any]:
        return await _read_statistics(context, [find_model(context, name, version)])

    @add("/config", "The model's tensors, as a configuration file says it", ConfigBody)
    async def config(name: str, version: str) -> dict[str, Any]:
        return describe_config(find_model(context, name, version))

    @add("/ready", "Whether a worker of the model is up", ModelReadyBody, (404, 503))
    async def model_ready(name: str, version: str) -> dict[str, Any]:
        model = find_model(context, name, version)
        if not model.workers:
            raise NoWorker(f"no worker of {model.name}@{model.version} is up", retry_after_s=1.0)
        return {"name": model.name, "ready": True}

    @add("", "The model's tensors", MetadataBody)
    async def metadata(name: str, version: str) -> dict[str, Any]:
        model = find_model(context, name, version)
        return describe_model(model, list_versions(context.classifier.list_models(), model.name))


def _add_infer(router: APIRouter, context: ProtocolContext) -> None:
    async def infer_any(request: Request, name: str) -> Response:
        return await _infer(context, request, name, "")

    async def infer_one(request: Request, name: str, version: str) -> Response:
        return await _infer(context, request, name, version)

    for prefix, function in ((MODEL, infer_any), (VERSION, infer_one)):
        router.add_api_route(
            f"{prefix}/infer",
            function,
            methods=["POST"],
            response_model=InferResponseBody,
            responses={**_errors(*INFER_STATUSES), 200: BINARY},
            summary="Classify the images of one tensor",
            openapi_extra=describe_infer_body(),
        )


async def _infer(context: ProtocolContext, request: Request, name: str, version: str) -> Response:
    exchange: Exchange = request.scope["exchange"]
    connection: Connection = request.scope["connection"]
    settings = context.settings
    deadline = parse_deadline(exchange.text(b"request-timeout"), settings)
    exchange.model = name_model(name, version)
    header_bytes = _read_header_length(exchange)
    limit = limit_base64 if header_bytes is None else limit_raw
    with context.classifier.reserve(0) as lease:
        body = await read_inflated(request, lease, limit(settings.max_image_bytes), deadline)
        if len(body) > INLINE_BYTES:
            asked = await asyncio.to_thread(parse_body, body, header_bytes)
        else:
            asked = parse_body(body, header_bytes)
        del body  # from here the images are held once
        call = InferCall(
            name,
            version,
            asked.id,
            asked.images,
            asked.output,
            asked.parameters,
            exchange.request_id,
            deadline,
            "http",
            exchange.caller,
        )
        connection.cancel_when_lost(asyncio.current_task())
        answer = await infer(context, call)
        connection.cancel_when_lost(None)
    content, json_bytes = encode_answer(answer, asked.id, is_binary=asked.output.is_binary)
    if json_bytes is None:
        return Response(content, media_type="application/json")
    headers = {HEADER_LENGTH: str(json_bytes)}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _read_header_length(exchange: Exchange) -> int | None:
    text = exchange.text(HEADER_LENGTH.lower().encode())
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise BadRequest(f"{HEADER_LENGTH} is not a number of bytes", HEADER_LENGTH)
    if not int(text) and (exchange.text(b"content-type") or "").startswith("application/json"):
        raise BadRequest(f"{HEADER_LENGTH} 0 says that the body is an image, Content-Type that it is JSON")
    return int(text)


async def _read_statistics(context: ProtocolContext, models: list[Any]) -> dict[str, Any]:
    told = []
    for model in models:
        totals = await asyncio.to_thread(context.metrics.sum_totals, model.name)
        told.append(describe_statistics(model, totals))
    return {"model_stats": told}
