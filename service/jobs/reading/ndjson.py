"""Lines of {"id": ..., "b64": ...}; a bad line is an item with an error, its neighbours are unharmed."""

import binascii
import codecs
from typing import BinaryIO

import msgspec

from service.errors import BadRequest, TooLarge
from service.jobs.items import ItemId
from service.jobs.spool import Spool

ROOM_FOR_ID_BYTES = 1 << 16
SKIP_BYTES = 1 << 18


class _Row(msgspec.Struct):
    b64: str
    id: str | int | None = None


_decoder = msgspec.json.Decoder(_Row)


def spool_ndjson(body: BinaryIO, spool: Spool) -> None:
    """Every line that is not blank becomes an item, in order."""
    longest = spool.limits.max_image_bytes * 4 // 3 + ROOM_FOR_ID_BYTES
    line = body.readline(longest).removeprefix(codecs.BOM_UTF8)
    while line:
        if len(line) == longest and not line.endswith(b"\n"):
            _skip_line(body)
            _spool_error(
                spool, None, TooLarge(f"the line is longer than {longest} bytes (SERVE_MAX_IMAGE_BYTES)")
            )
        elif line.strip():
            _spool_line(line, spool)
        line = body.readline(longest)


def _spool_line(line: bytes, spool: Spool) -> None:
    try:
        row = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last one of brackets in brackets
        _spool_error(spool, None, BadRequest('the line is not {"id": ..., "b64": ...}'))
        return
    try:
        image = binascii.a2b_base64(row.b64, strict_mode=True)
    except (binascii.Error, ValueError):
        _spool_error(spool, row.id, BadRequest("b64 is not base64"))
        return
    spool.begin(row.id)
    spool.write(image)
    spool.end()


def _spool_error(spool: Spool, id: ItemId, error: BadRequest | TooLarge) -> None:
    spool.begin(id)
    spool.fail(error)
    spool.end()


def _skip_line(body: BinaryIO) -> None:
    while (rest := body.readline(SKIP_BYTES)) and not rest.endswith(b"\n"):
        pass
