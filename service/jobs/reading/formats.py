"""Which reader a body gets: its Content-Type says multipart, everything else is told by its first bytes."""

import codecs
from collections.abc import Callable
from typing import BinaryIO

from service.errors import BadRequest
from service.jobs.reading.members import MemberSink
from service.jobs.reading.multipart import spool_multipart
from service.jobs.reading.ndjson import spool_ndjson
from service.jobs.reading.tars import is_tar, spool_tar, spool_tar_gz
from service.jobs.reading.zips import spool_zip
from service.jobs.spool import Spool

SNIFFED_BYTES = 512
EXPECTED = "multipart/form-data with img parts, a zip, a tar, a tar.gz, or lines of JSON with id and b64"


def spool_body(head: bytes, body: BinaryIO, spool: Spool, content_type: str) -> None:
    """Read a whole body into the spool; `head` is what its first SNIFFED_BYTES will be.

    Raises BadRequest, TooLarge, StorageFull, and what reading `body` raises.
    """
    if content_type.lower().startswith("multipart/form-data"):
        spool_multipart(body, spool, content_type)
    else:
        read = _find_reader(head)
        if read is None:
            raise BadRequest(f"the body is not a batch; send {EXPECTED}")
        read(body, spool)
    if not spool.count:
        raise BadRequest("the batch holds no image")


def find_archive_reader(head: bytes) -> Callable[[BinaryIO, MemberSink], None] | None:
    """The reader of a zip, a tar or a tar.gz that begins with these SNIFFED_BYTES; None for anything else."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return spool_zip
    if head.startswith(b"\x1f\x8b"):
        return spool_tar_gz
    return spool_tar if is_tar(head) else None


def is_batch(head: bytes) -> bool:
    """Whether a file that begins so holds many images."""
    return _find_reader(head) is not None


def _find_reader(head: bytes) -> Callable[[BinaryIO, Spool], None] | None:
    text = head.removeprefix(codecs.BOM_UTF8)
    return find_archive_reader(head) or (spool_ndjson if text.lstrip().startswith(b"{") else None)
