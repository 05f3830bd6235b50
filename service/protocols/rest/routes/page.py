"""/: the page that shows what the service sees in a picture, from files that ship with it."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from service.errors import NotFound
from service.protocols.base import ProtocolContext

ASSETS = Path(__file__).resolve().parents[3] / "web"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
# Nothing from elsewhere; pictures come from the page itself, as blob: and data: addresses.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "no-cache",
}


def make_router(_: ProtocolContext) -> APIRouter:
    """The page and its files; only names that exist at start are ever opened."""
    router = APIRouter(include_in_schema=False)
    folders = (ASSETS, ASSETS / "samples")
    files = [path for folder in folders for path in folder.iterdir() if path.suffix in MEDIA_TYPES]
    known = {str(path.relative_to(ASSETS)): path for path in files}

    @router.get("/")
    async def page() -> Response:
        return FileResponse(ASSETS / "index.html", media_type="text/html; charset=utf-8", headers=HEADERS)

    @router.get("/web/{file:path}")
    async def asset(file: str) -> Response:
        path = known.get(file)
        if path is None:
            raise NotFound(f"there is no file {file[:100]!r} under /web")
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers=HEADERS)

    return router
