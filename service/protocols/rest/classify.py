"""POST /v1/classify, plain ASGI: the one route whose cost per request decides how much the service serves."""

import asyncio
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from service.errors import BadRequest
from service.protocols.base import ProtocolContext
from service.protocols.options import parse_deadline, parse_options
from service.protocols.rest.answers import encode_classification, format_server_timing
from service.protocols.rest.body import FORM_BYTES, Receive, check_headers, is_form, read_body, read_image
from service.protocols.rest.exchange import Answer, Connection, Exchange, Scope
from service.types import Classification, ClassifyOptions, ClassifyRequest

PATH = "/v1/classify"
MAX_QUERY_BYTES = 2048


@lru_cache(maxsize=256)
def parse_query(query: bytes) -> dict[str, str]:
    """The parameters of a query string; raises BadRequest for one given twice. Do not change the result."""
    if len(query) > MAX_QUERY_BYTES:
        raise BadRequest(f"the query is longer than {MAX_QUERY_BYTES} bytes", "query")
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("a parameter is given twice", "query")
    return found


@lru_cache(maxsize=256)
def _parse_query_options(query: bytes) -> ClassifyOptions:
    return parse_options(parse_query(query))


class ClassifyHandler:
    """Answers one request at a time, as often as asked; holds no state of its own."""

    def __init__(self, context: ProtocolContext) -> None:
        self._classifier = context.classifier
        self._settings = context.settings

    async def handle(self, scope: Scope, receive: Receive, exchange: Exchange) -> Answer:
        """The answer; raises ServiceError, and CallerGone or CancelledError where nobody waits for one."""
        settings = self._settings
        query: bytes = scope["query_string"]
        options = _parse_query_options(query)
        exchange.model = options.model
        deadline = parse_deadline(exchange.text(b"request-timeout"), settings)
        declared_bytes = check_headers(exchange, settings.max_image_bytes)
        self._classifier.check_admission(options, deadline, exchange.caller)
        connection: Connection = scope["connection"]
        connection.limit_body(deadline)
        with self._classifier.reserve(declared_bytes) as lease:
            limit_bytes = settings.max_image_bytes + (FORM_BYTES if is_form(exchange) else 0)
            body = await read_body(receive, lease, limit_bytes, connection)
            image, fields = read_image(body, exchange, settings.max_image_bytes)
            del body  # from here the image is held once
            if fields:
                options = _merge(parse_query(query), fields)
                exchange.model = options.model
            request = ClassifyRequest(image, exchange.request_id, deadline, options, exchange.caller)
            connection.cancel_when_lost(asyncio.current_task())
            answer = await self._classifier.classify(request)
            connection.cancel_when_lost(None)
        return _write(answer)


def _merge(query: dict[str, str], fields: dict[str, str]) -> ClassifyOptions:
    twice = sorted(query.keys() & fields.keys())
    if twice:
        raise BadRequest(f"{twice[0]} is given in the query and in the form", twice[0])
    return parse_options({**query, **fields})


def _write(answer: Classification) -> Answer:
    body = encode_classification(answer)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", answer.request_id.encode()),
        (b"server-timing", format_server_timing(answer.timings_ms)),
    ]
    return 200, headers, body


def describe_parameters() -> list[dict[str, Any]]:
    """The query parameters for the OpenAPI document."""
    flag = {"type": "boolean", "default": False}
    model = {"type": "string", "pattern": r"^[A-Za-z0-9._-]{1,128}(@[0-9]{1,9})?$"}
    tta = {"type": "string", "pattern": "^[a-z0-9_]{1,32}$"}
    scales = {"type": "string", "pattern": "^[0-9]{1,4}(,[0-9]{1,4}){0,7}$"}
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("model", model, "name or name@version; the default model where absent"),
        ("top_k", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5}, "how many classes"),
        ("tta", tta, "view policy; the card's default where absent"),
        ("scales", scales, "the paper's scales for multi_scale, such as 224,256,384"),
        ("merge", {"type": "string", "enum": ["logits", "probabilities"]}, "how views' scores are merged"),
        ("pool", {"type": "string", "enum": ["window", "global"]}, "how the dense policies pool"),
        ("map", flag, "add the activation map"),
        ("class", {"type": "integer", "minimum": 0}, "class of the map; the best one where absent"),
        ("logits", flag, "add the logits"),
        ("precision", {"type": "string", "enum": ["fp32", "int8"]}, "precision of the engine"),
        ("priority", {"type": "string", "enum": ["interactive", "bulk"]}, "bulk yields to interactive"),
    ]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": meaning}
        for name, schema, meaning in rows
    ]
