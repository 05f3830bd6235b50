"""Bodies of protocols that send more than an image's bytes: bounded, timed, inflated off the loop."""

import asyncio
import zlib
from collections.abc import AsyncIterator

from fastapi import Request

from service.admission import Lease
from service.errors import BadRequest, RequestTimeout, TooLarge, UnsupportedFormat
from service.protocols.rest.body import FORM_BYTES, CallerGone, read_body
from service.protocols.rest.exchange import Connection, Exchange

# zlib's window bits: 15, and 32 more to tell gzip and zlib apart by their headers.
ANY_HEADER = 15 + 32
NO_HEADER = -15


def limit_raw(max_image_bytes: int) -> int:
    """Bytes of the largest body whose images are raw."""
    return max_image_bytes + FORM_BYTES


def limit_base64(max_image_bytes: int) -> int:
    """Bytes of the largest body whose images are base64: four bytes for three."""
    return (max_image_bytes + 2) // 3 * 4 + FORM_BYTES


async def read_inflated(request: Request, lease: Lease, limit_bytes: int, deadline: float) -> bytes:
    """The whole body without its Content-Encoding; the limit holds before and after.

    Raises TooLarge, Overloaded, RequestTimeout, BadRequest, UnsupportedFormat, CallerGone.
    """
    exchange: Exchange = request.scope["exchange"]
    connection: Connection = request.scope["connection"]
    connection.limit_body(deadline)
    lease.grow(min(exchange.content_length() or 0, limit_bytes))
    body = await read_body(request.receive, lease, limit_bytes, connection)
    encoding = (exchange.text(b"content-encoding") or "").strip().lower()
    if encoding not in ("", "identity"):
        compressed_bytes = len(body)
        body = await asyncio.to_thread(inflate, body, encoding, limit_bytes)
        lease.grow(max(0, len(body) - compressed_bytes))
    return body


async def iterate_body(request: Request) -> AsyncIterator[bytes]:
    """A body in pieces as it arrives, whatever its size; raises CallerGone, RequestTimeout."""
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise CallerGone
        if message["body"]:
            yield message["body"]
        if not message["more_body"]:
            return
        if request.scope["connection"].is_late:
            raise RequestTimeout("the body stopped before its end")


def inflate(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """The body as it was before gzip or deflate; never more than `limit_bytes` are made of it.

    Raises TooLarge, BadRequest, UnsupportedFormat for another encoding.
    """
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedFormat(f"Content-Encoding {encoding[:40]!r} is not supported; gzip and deflate are")
    for window in (ANY_HEADER, NO_HEADER):  # "deflate" is zlib's format, but some send it without its header
        stream = zlib.decompressobj(window)
        try:
            inflated = stream.decompress(body, limit_bytes + 1)
        except zlib.error:
            continue
        if len(inflated) > limit_bytes:
            raise TooLarge(f"the inflated body is over {limit_bytes} bytes (SERVE_MAX_IMAGE_BYTES)")
        if not stream.eof or stream.unused_data:
            raise BadRequest("the compressed body is cut off or followed by something else")
        return inflated
    raise BadRequest(f"the body is not {encoding}")
