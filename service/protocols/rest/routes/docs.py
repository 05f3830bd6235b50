"""/docs: Swagger UI over /openapi.json, from files that ship with the service: no other host is asked."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from service.errors import NotFound
from service.protocols.base import ProtocolContext

ASSETS = Path(__file__).resolve().parents[3] / "web" / "swagger"
MEDIA_TYPES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "start.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ResNet Serve: the HTTP API</title>
<link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
# Swagger UI sets style attributes and shows its icons from data: addresses.
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def make_router(_: ProtocolContext) -> APIRouter:
    """The page and its files."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"content-security-policy": POLICY})

    @router.get("/docs/{file}")
    async def asset(file: str) -> Response:
        if file not in MEDIA_TYPES:
            raise NotFound(f"there is no file {file[:100]!r} under /docs")
        headers = {"cache-control": "public, max-age=86400"}
        return FileResponse(ASSETS / file, media_type=MEDIA_TYPES[file], headers=headers)

    return router
