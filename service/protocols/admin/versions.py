"""The routes of the admin port about model versions."""

import asyncio
from dataclasses import asdict
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.errors import BadRequest, UnsupportedFormat
from service.protocols.base import ProtocolContext
from service.protocols.rest.exchange import Exchange
from service.protocols.rest.intake import iterate_body
from service.versions.census import VersionState
from service.versions.desk import VersionDesk

PATH = "/v1/versions"
ONE = PATH + "/{name}/{version}"
MAX_CHOICE_BYTES = 1_024


class Choice(msgspec.Struct, forbid_unknown_fields=True):
    """The body that chooses a default."""

    version: int


def make_router(context: ProtocolContext) -> APIRouter:
    """List, send, look at, delete; choose what a name means, and take that back."""
    router = APIRouter(tags=["versions"])
    desk = VersionDesk(context.settings, context.classifier)

    @router.get(PATH, summary="Every model version in the repository")
    async def list_versions() -> dict[str, Any]:
        return {"versions": [asdict(state) for state in await desk.list()]}

    @router.get(ONE, summary="One version: ready, loading, stored or refused")
    async def find_version(name: str, version: int) -> dict[str, Any]:
        return asdict(await desk.find(name, version))

    @router.post(PATH, status_code=201, summary="Send a version's files as a zip, a tar or a tar.gz")
    async def push_version(request: Request) -> Response:
        exchange: Exchange = request.scope["exchange"]
        request.scope["connection"].cancel_when_lost(asyncio.current_task())
        encoding = (exchange.text(b"content-encoding") or "identity").strip().lower()
        if encoding != "identity":
            raise UnsupportedFormat("Content-Encoding is not supported; send the archive as it is")
        state = await desk.push(iterate_body(request), exchange.content_length() or 0)
        return JSONResponse(asdict(state), 201, {"location": locate(state)})

    @router.delete(ONE, status_code=204, summary="Delete a version that nobody uses")
    async def remove_version(name: str, version: int) -> None:
        await desk.remove(name, version)

    @router.put("/v1/models/{name}/default", summary="Choose the version that a bare name means")
    async def choose_default(name: str, request: Request) -> dict[str, Any]:
        return asdict(await desk.activate(name, await _read_choice(request)))

    @router.post("/v1/models/{name}/rollback", summary="Back to the version that the name meant before")
    async def roll_back(name: str) -> dict[str, Any]:
        return asdict(await desk.roll_back(name))

    return router


def locate(state: VersionState) -> str:
    """The path of a version's own resource."""
    return f"{PATH}/{state.name}/{state.version}"


async def _read_choice(request: Request) -> int:
    body = b""
    async for chunk in iterate_body(request):
        body += chunk
        if len(body) > MAX_CHOICE_BYTES:
            raise BadRequest(f"the choice is longer than {MAX_CHOICE_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=Choice).version
    except msgspec.DecodeError as err:
        raise BadRequest('the body is not {"version": <number>}') from err
