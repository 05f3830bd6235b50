"""Routes that clients of TorchServe, TF Serving and KServe v1 rely on: they change only the host name."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from service.errors import BadRequest, UnknownModel
from service.protocols.base import ProtocolContext
from service.protocols.many import ManyImages, classify_many
from service.protocols.options import parse_deadline
from service.protocols.orphans import (
    OPTIONS,
    TORCHSERVE_TOP_K,
    describe_prediction,
    name_labels,
    parse_instances,
    read_options,
)
from service.protocols.rest.body import is_form
from service.protocols.rest.classify import describe_parameters, parse_query
from service.protocols.rest.exchange import Connection, Exchange
from service.protocols.rest.intake import limit_base64, limit_raw, read_inflated
from service.protocols.rest.multipart import find_boundary, split_parts
from service.protocols.rest.open_inference_schemas import ErrorBody
from service.types import Classification, ClassifyOptions

STATUSES = (400, 404, 408, 413, 415, 422, 429, 500, 503, 504)
IMAGE: dict[str, Any] = {"type": "string", "format": "binary", "minLength": 1}


class TorchServeError(BaseModel):
    """What went wrong, as TorchServe says it."""

    code: int
    type: str
    message: str


class PredictionBody(BaseModel):
    """The best class by index and by name, and the probability of each class."""

    classes: int
    label: str
    probabilities: list[float]


class PredictBody(BaseModel):
    """One element for each instance."""

    predictions: list[PredictionBody]


def make_router(context: ProtocolContext) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["other servers' clients"])
    predictions, predict = _make_predictions(context), _make_predict(context)

    async def predictions_any(request: Request, name: str) -> dict[str, float]:
        return await predictions(request, name)

    async def predictions_one(request: Request, name: str, version: str) -> dict[str, float]:
        return await predictions(request, f"{name}@{version.removesuffix('.0')}")  # they write 1.0

    async def predict_any(request: Request, name: str) -> dict[str, Any]:
        return await predict(request, name)

    async def predict_one(request: Request, name: str, version: str) -> dict[str, Any]:
        return await predict(request, f"{name}@{version}")

    for path, function in (("", predictions_any), ("/{version}", predictions_one)):
        for method in ("POST", "PUT"):  # `curl -T cat.jpg` puts
            router.add_api_route(
                f"/predictions/{{name}}{path}",
                function,
                methods=[method],
                operation_id=f"{method.lower()}_predictions{'_version' if path else ''}",
                response_model=dict[str, float],
                responses={status: {"model": TorchServeError} for status in STATUSES},
                summary="TorchServe's predictions: label -> probability",
                openapi_extra={"parameters": _list_parameters(), "requestBody": _describe_image()},
            )
    for path, answer in (("", predict_any), ("/versions/{version}", predict_one)):
        router.add_api_route(
            f"/v1/models/{{name}}{path}:predict",
            answer,
            methods=["POST"],
            operation_id=f"predict{'_version' if path else ''}",
            response_model=PredictBody,
            responses={status: {"model": ErrorBody} for status in STATUSES},
            summary="TF Serving's and KServe v1's predict",
            openapi_extra={"parameters": _list_parameters(), "requestBody": _describe_instances()},
        )
    return router


def _make_predictions(context: ProtocolContext) -> Callable[[Request, str], Awaitable[dict[str, float]]]:
    async def predictions(request: Request, model: str) -> dict[str, float]:
        exchange: Exchange = request.scope["exchange"]
        exchange.model = model
        deadline = parse_deadline(exchange.text(b"request-timeout"), context.settings)
        options = read_options(parse_query(request.scope["query_string"]), model, TORCHSERVE_TOP_K)
        with context.classifier.reserve(0) as lease:
            body = await read_inflated(request, lease, limit_raw(context.settings.max_image_bytes), deadline)
            image = _read_image(body, exchange)
            [answer] = await _classify(context, request, [image], options, deadline)
        return name_labels(answer.predictions)

    return predictions


def _make_predict(context: ProtocolContext) -> Callable[[Request, str], Awaitable[dict[str, Any]]]:
    async def predict(request: Request, model: str) -> dict[str, Any]:
        exchange: Exchange = request.scope["exchange"]
        exchange.model = model
        deadline = parse_deadline(exchange.text(b"request-timeout"), context.settings)
        query = parse_query(request.scope["query_string"])
        with context.classifier.reserve(0) as lease:
            limit_bytes = limit_base64(context.settings.max_image_bytes)
            body = await read_inflated(request, lease, limit_bytes, deadline)
            card = context.classifier.find_model(model).card
            if card is None:
                raise UnknownModel(f"no version of {model[:80]!r} is served")
            classes = len(card.labels)
            images = await asyncio.to_thread(parse_instances, body)
            del body  # from here the images are held once
            options = read_options(query, model, top_k=classes)
            answers = await _classify(context, request, images, options, deadline)
        return {"predictions": [describe_prediction(one, classes) for one in answers]}

    return predict


async def _classify(
    context: ProtocolContext, request: Request, images: list[bytes], options: ClassifyOptions, deadline: float
) -> list[Classification]:
    exchange: Exchange = request.scope["exchange"]
    connection: Connection = request.scope["connection"]
    connection.cancel_when_lost(asyncio.current_task())
    many = ManyImages(images, options, exchange.request_id, deadline, "http", exchange.caller)
    answers = await classify_many(context, many)
    connection.cancel_when_lost(None)
    return answers


def _read_image(body: bytes, exchange: Exchange) -> bytes:
    if not is_form(exchange):
        return body
    parts = split_parts(body, find_boundary(exchange.text(b"content-type") or ""))
    files = [part.content for part in parts if part.has_file_name or part.name in ("data", "body")]
    if len(files) != 1:
        raise BadRequest(f"the form has {len(files)} files, it must have one, such as data=@cat.jpg", "data")
    return files[0]


def _list_parameters() -> list[dict[str, Any]]:
    return [one for one in describe_parameters() if one["name"] in OPTIONS]


def _describe_image() -> dict[str, Any]:
    form = {"type": "object", "required": ["data"], "properties": {"data": IMAGE}}
    return {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": IMAGE},
            "image/*": {"schema": IMAGE},
            "multipart/form-data": {"schema": form},
        },
    }


def _describe_instances() -> dict[str, Any]:
    encoded = {"type": "string", "contentEncoding": "base64", "minLength": 4}
    instance = {"type": "object", "required": ["b64"], "properties": {"b64": encoded}}
    schema = {
        "type": "object",
        "required": ["instances"],
        "properties": {"instances": {"type": "array", "items": instance, "minItems": 1, "maxItems": 256}},
    }
    return {"required": True, "content": {"application/json": {"schema": schema}}}
