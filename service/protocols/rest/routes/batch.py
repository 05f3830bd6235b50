"""/v1/batch: many images in one body, answered line by line, or as a durable job."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.errors import BadRequest, Draining, UnknownModel, UnsupportedFormat
from service.jobs.desk import BatchDesk, Submission
from service.jobs.reception import Received
from service.jobs.tables import CSV_HEADER
from service.protocols.base import ProtocolContext
from service.protocols.options import parse_options
from service.protocols.rest.batch_docs import DELETE, FIND, RESULTS, SUBMIT
from service.protocols.rest.classify import parse_query
from service.protocols.rest.exchange import Exchange
from service.protocols.rest.intake import iterate_body
from service.protocols.rest.results import (
    MEDIA_TYPES,
    Format,
    choose_format,
    describe_job,
    encode_lines,
    open_results,
)
from service.types import ClassifyOptions

PATH = "/v1/batch"
MAX_MANIFEST_BYTES = 65_536
MAX_KEY = 255


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """A body of application/json: `source` is the URL of an allowed folder."""

    source: str


class LineResponse(StreamingResponse):
    """Scores a received batch while it is sent; its folder goes when the answer ends, however it ends."""

    def __init__(self, content: AsyncIterator[bytes], media_type: str, received: Received) -> None:
        super().__init__(content, media_type=media_type)
        self._received = received

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.shield(asyncio.to_thread(self._received.folder.remove))


def make_router(context: ProtocolContext) -> APIRouter:
    """The routes of batches and durable jobs."""
    router = APIRouter(tags=["batch"])
    desk = BatchDesk(context.settings, context.classifier)

    @router.post(PATH, **SUBMIT)
    async def submit(request: Request) -> Response:
        exchange: Exchange = request.scope["exchange"]
        request.scope["connection"].cancel_when_lost(asyncio.current_task())
        query = dict(parse_query(request.scope["query_string"]))
        form = choose_format(exchange.text(b"accept"), query.pop("format", None), ("ndjson", "csv"))
        options = _read_options(query, context)
        exchange.model = options.model
        if prefers_async(exchange.text(b"prefer")):
            return await _submit_job(request, desk, Submission(options, _read_key(exchange), exchange.caller))
        if _is_manifest(exchange):
            raise BadRequest("a source is scored as a durable job; add the header Prefer: respond-async")
        received = await _receive(request, desk, durable=False)
        lines = _encode(desk, received, options, exchange.request_id, form)
        return LineResponse(lines, MEDIA_TYPES[form], received)

    @router.get(PATH + "/{id}", **FIND)
    async def find(id: str, request: Request) -> Response:
        return JSONResponse(describe_job(await desk.find(id, _name_caller(request))))

    @router.get(PATH + "/{id}/results", **RESULTS)
    async def results(id: str, request: Request) -> Response:
        exchange: Exchange = request.scope["exchange"]
        query = parse_query(request.scope["query_string"])
        form = choose_format(exchange.text(b"accept"), query.get("format"), ("ndjson", "csv", "parquet"))
        job = await desk.find(id, exchange.caller)
        body = open_results(job, desk.folder_of(job), form)
        return StreamingResponse(body, media_type=MEDIA_TYPES[form])

    @router.delete(PATH + "/{id}", **DELETE)
    async def end(id: str, request: Request) -> Response:
        job = await desk.end(id, _name_caller(request))
        return Response(status_code=204) if job is None else JSONResponse(describe_job(job), 202)

    return router


def _name_caller(request: Request) -> str:
    exchange: Exchange = request.scope["exchange"]
    return exchange.caller


async def _submit_job(request: Request, desk: BatchDesk, submission: Submission) -> Response:
    exchange: Exchange = request.scope["exchange"]
    if _is_manifest(exchange):
        job = await desk.submit_source(await _read_source(request), submission)
    else:
        job = await desk.submit(await _receive(request, desk, durable=True), submission)
    headers = {"location": f"{PATH}/{job.id}", "preference-applied": "respond-async"}
    return JSONResponse(describe_job(job), 202, headers)


async def _receive(request: Request, desk: BatchDesk, *, durable: bool) -> Received:
    exchange: Exchange = request.scope["exchange"]
    encoding = (exchange.text(b"content-encoding") or "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedFormat("Content-Encoding is not supported; send the archive as it is")
    content_type = exchange.text(b"content-type") or ""
    declared_bytes = exchange.content_length() or 0
    return await desk.receive(iterate_body(request), content_type, declared_bytes, durable=durable)


async def _read_source(request: Request) -> str:
    body = b""
    async for chunk in iterate_body(request):
        body += chunk
        if len(body) > MAX_MANIFEST_BYTES:
            raise BadRequest(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=Manifest).source
    except msgspec.DecodeError as err:
        raise BadRequest('the manifest is not {"source": "protocol://folder"}') from err


async def _encode(
    desk: BatchDesk, received: Received, options: ClassifyOptions, request_id: str, form: Format
) -> AsyncIterator[bytes]:
    if form == "csv":
        yield CSV_HEADER
    async for lines in desk.score(received, options, request_id):
        yield encode_lines(lines, form)


def _read_options(query: dict[str, str], context: ProtocolContext) -> ClassifyOptions:
    options = parse_options(query)
    if options.wants_map:
        raise BadRequest("a batch has no activation maps; ask /v1/classify for one image", "map")
    if context.classifier.is_draining:
        raise Draining("this server is stopping, ask another one", retry_after_s=1.0)
    found = context.classifier.find_model(options.model)
    if found.state == "refused":
        raise UnknownModel(f"every version of {found.name} was refused")
    return options if "priority" in query else replace(options, priority="bulk")


def _read_key(exchange: Exchange) -> str:
    key = exchange.text(b"idempotency-key") or ""
    if len(key) > MAX_KEY:
        raise BadRequest(f"Idempotency-Key is longer than {MAX_KEY} characters", "Idempotency-Key")
    return key


def _is_manifest(exchange: Exchange) -> bool:
    return (exchange.text(b"content-type") or "").partition(";")[0].strip().lower() == "application/json"


def prefers_async(prefer: str | None) -> bool:
    """Whether a Prefer header (RFC 7240) holds respond-async."""
    tokens = (part.partition(";")[0].strip().lower() for part in (prefer or "").split(","))
    return "respond-async" in tokens
