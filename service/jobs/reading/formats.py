"""Which reader a body gets: its Content-Type says multipart, everything else is told by its first bytes."""

import io

from service.errors import BadRequest
from service.jobs.body import BodyPipe
from service.jobs.reading.members import CHUNK_BYTES
from service.jobs.reading.multipart import spool_multipart
from service.jobs.reading.ndjson import spool_ndjson
from service.jobs.reading.tars import is_tar, spool_tar, spool_tar_gz
from service.jobs.reading.zips import spool_zip
from service.jobs.spool import Spool

SNIFFED_BYTES = 512
EXPECTED = "multipart/form-data with img parts, a zip, a tar, a tar.gz, or lines of JSON with id and b64"


def spool_body(pipe: BodyPipe, spool: Spool, content_type: str) -> None:
    """Read a whole body into the spool; raises BadRequest, TooLarge, StorageFull, BodyLost."""
    head = pipe.peek(SNIFFED_BYTES)
    body = io.BufferedReader(pipe, CHUNK_BYTES)
    if content_type.lower().startswith("multipart/form-data"):
        spool_multipart(body, spool, content_type)
    elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        spool_zip(body, spool)
    elif head.startswith(b"\x1f\x8b"):
        spool_tar_gz(body, spool)
    elif is_tar(head):
        spool_tar(body, spool)
    elif head.lstrip().startswith(b"{"):
        spool_ndjson(body, spool)
    else:
        raise BadRequest(f"the body is not a batch; send {EXPECTED}")
    if not spool.count:
        raise BadRequest("the batch holds no image")
