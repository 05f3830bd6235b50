"""multipart/form-data with any number of `img` parts; a part's file name is the item's id."""

from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadRequest
from service.jobs.spool import Spool

FIELD = "img"
CHUNK_BYTES = 1 << 18
MAX_SHOWN = 40


def spool_multipart(body: BinaryIO, spool: Spool, content_type: str) -> None:
    """Every `img` part becomes an item, in order; raises BadRequest."""
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise BadRequest("the Content-Type of a multipart body must state its boundary")
    parts = _Parts(spool)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": parts.begin,
            "on_part_data": parts.take,
            "on_part_end": spool.end,
            "on_header_begin": parts.begin_header,
            "on_header_field": parts.take_header_name,
            "on_header_value": parts.take_header_value,
            "on_header_end": parts.end_header,
            "on_headers_finished": parts.end_headers,
            "on_end": parts.finish,
        },
    )
    try:
        while chunk := body.read(CHUNK_BYTES):
            parser.write(chunk)
    except MultipartParseError as err:
        raise BadRequest("the multipart body is malformed") from err
    if not parts.is_complete:
        raise BadRequest("the multipart body ends before its last boundary")


class _Parts:
    """The parser's callbacks."""

    def __init__(self, spool: Spool) -> None:
        self.is_complete = False
        self._spool = spool
        self._name, self._value, self._disposition = bytearray(), bytearray(), b""

    def begin(self) -> None:
        self._disposition = b""

    def begin_header(self) -> None:
        self._name, self._value = bytearray(), bytearray()

    def take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            self._disposition = bytes(self._value)

    def end_headers(self) -> None:
        # latin-1 keeps every byte; browsers and curl send file names as UTF-8
        _, parameters = parse_options_header(self._disposition)
        field = parameters.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise BadRequest(
                f"part {field[:MAX_SHOWN]!r} is not known; images go into parts named {FIELD}", FIELD
            )
        self._spool.begin(parameters.get(b"filename", FIELD.encode()).decode("utf-8", "replace"))

    def take(self, data: bytes, start: int, end: int) -> None:
        self._spool.write(memoryview(data)[start:end])

    def finish(self) -> None:
        self.is_complete = True
