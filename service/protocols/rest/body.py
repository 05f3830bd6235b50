"""Reads an image out of a request's body, bounded before and while it is read."""

from collections.abc import Awaitable, Callable

from service.admission import Lease
from service.errors import BadRequest, RequestTimeout, TooLarge, UnsupportedFormat
from service.protocols.options import PARAMETER_NAMES
from service.protocols.rest.exchange import Connection, Exchange, Message
from service.protocols.rest.multipart import find_boundary, split_parts

Receive = Callable[[], Awaitable[Message]]
FORM_BYTES = 65_536  # what a form may add to the image: boundaries, part headers, small text fields
FIELD = "img"


class CallerGone(Exception):
    """The caller closed the connection; nobody waits for an answer."""


def check_headers(exchange: Exchange, max_image_bytes: int) -> int:
    """Refuse what is known to be wrong before the body is read; returns the declared size, 0 if unknown.

    Raises TooLarge, UnsupportedFormat, BadRequest.
    """
    encoding = exchange.text(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedFormat("Content-Encoding is not supported; send the image as it is")
    size_bytes = exchange.content_length() or 0
    if size_bytes > max_image_bytes + (FORM_BYTES if is_form(exchange) else 0):
        check_size(size_bytes, max_image_bytes)
    return size_bytes


def check_size(size_bytes: int, limit_bytes: int) -> None:
    """Raises TooLarge for more than the limit."""
    if size_bytes > limit_bytes:
        detail = f"the image has {size_bytes} bytes, the limit is {limit_bytes} (SERVE_MAX_IMAGE_BYTES)"
        raise TooLarge(detail)


def is_form(exchange: Exchange) -> bool:
    """Whether the body is multipart/form-data."""
    return exchange.headers.get(b"content-type", b"")[:19].lower() == b"multipart/form-data"


async def read_body(receive: Receive, lease: Lease, limit_bytes: int, connection: Connection) -> bytes:
    """The whole body, holding room for it; raises TooLarge, Overloaded, RequestTimeout, CallerGone."""
    chunks: list[bytes] = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise CallerGone
        chunk = message["body"]
        if chunk:
            size_bytes += len(chunk)
            check_size(size_bytes, limit_bytes)
            if size_bytes > lease.size_bytes:
                lease.grow(size_bytes - lease.size_bytes)
            chunks.append(chunk)
        if not message["more_body"]:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if connection.is_late:
            raise RequestTimeout(f"the body stopped after {size_bytes} bytes")


def read_image(body: bytes, exchange: Exchange, max_image_bytes: int) -> tuple[bytes, dict[str, str]]:
    """The encoded image of a body, and the parameters among a form's text fields.

    Raises BadRequest where there is not exactly one image, TooLarge.
    """
    if not body:
        raise BadRequest(f"the body is empty; send an image, or a form with the file field {FIELD!r}")
    if not is_form(exchange):
        return body, {}
    image, fields = _read_form(body, exchange.text(b"content-type") or "")
    check_size(len(image), max_image_bytes)
    return image, fields


def _read_form(body: bytes, content_type: str) -> tuple[bytes, dict[str, str]]:
    image: bytes | None = None
    fields: dict[str, str] = {}
    for part in split_parts(body, find_boundary(content_type)):
        if part.name == FIELD:
            if image is not None:
                raise BadRequest(f"the form has several {FIELD!r} fields; /v1/batch takes many images", FIELD)
            image = part.content
        elif part.name in PARAMETER_NAMES and not part.has_file_name:
            if part.name in fields:
                raise BadRequest(f"the form has several {part.name!r} fields", part.name)
            fields[part.name] = part.content.decode("utf-8", "replace")
    if image is None:
        raise BadRequest(f"the form has no file field {FIELD!r}", FIELD)
    if not image:
        raise BadRequest(f"the form's field {FIELD!r} is empty", FIELD)
    return image, fields
