"""Results of a batch as HTTP bodies: NDJSON, CSV or Parquet, streamed, never held whole."""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal

from service.errors import BadRequest, Internal
from service.jobs.items import Line
from service.jobs.results import RESULTS, line_decoder, line_encoder
from service.jobs.store import Job
from service.jobs.tables import CSV_HEADER, format_csv

Format = Literal["ndjson", "csv", "parquet"]
MEDIA_TYPES: dict[Format, str] = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
_ACCEPTED: dict[str, Format] = {
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
}
READ_BYTES = 1 << 18
_WEIGHT = re.compile(r";\s*q=([0-9.]{1,5})")


def choose_format(accept: str | None, asked: str | None, offered: tuple[Format, ...]) -> Format:
    """What the query's `format` asks for, else the Accept header's best; NDJSON where it names none of ours.

    Raises BadRequest for a `format` that is not offered.
    """
    if asked is not None:
        for one in offered:
            if asked == one:
                return one
        raise BadRequest(f"format must be {' or '.join(offered)}", "format")
    best: Format = "ndjson"
    best_weight = 0.0
    for part in (accept or "").split(","):
        found = _ACCEPTED.get(part.partition(";")[0].strip().lower())
        given = _WEIGHT.search(part)
        weight = _read_weight(given.group(1)) if given else 1.0
        if found in offered and weight > best_weight:
            best, best_weight = found, weight
    return best


def encode_lines(lines: Iterable[Line], form: Format) -> bytes:
    """Lines as NDJSON or CSV, the latter without its header."""
    if form == "csv":
        return format_csv(lines)
    return b"".join([line_encoder.encode(line) + b"\n" for line in lines])


def describe_job(job: Job) -> dict[str, Any]:
    """The answer to GET /v1/batch/{id}."""
    return {
        "id": job.id,
        "status": job.status,
        "reason": job.reason or None,
        "counts": {"total": job.total, "done": job.done, "failed": job.failed},
        "rate_per_s": round(job.rate_per_s, 2),
        "eta_s": None if job.eta_s is None else round(job.eta_s, 1),
        "created": job.created,
        "finished": job.finished,
    }


def open_results(job: Job, folder: Path, form: Format) -> AsyncIterator[bytes]:
    """What is finished by now, as a body; raises Internal where it cannot be written down."""
    if form == "parquet":
        return _stream_parquet(folder, job.results_bytes)
    if form == "csv":
        return _stream_csv(folder, job.results_bytes)
    return _stream_file(folder, job.results_bytes)


async def _stream_file(folder: Path, size_bytes: int) -> AsyncIterator[bytes]:
    if not size_bytes:
        return
    with (folder / RESULTS).open("rb") as file:
        left = size_bytes
        while left:
            data = await asyncio.to_thread(file.read, min(left, READ_BYTES))
            if not data:  # it was cut meanwhile, as the runner cuts a file that is not what it wrote
                raise Internal("the results are shorter than they were")
            left -= len(data)
            yield data


async def _stream_csv(folder: Path, size_bytes: int) -> AsyncIterator[bytes]:
    yield CSV_HEADER
    rest = b""
    async for data in _stream_file(folder, size_bytes):
        whole, _, rest = (rest + data).rpartition(b"\n")
        yield await asyncio.to_thread(_convert_csv, whole)


def _convert_csv(data: bytes) -> bytes:
    return format_csv(line_decoder.decode(line) for line in data.splitlines())


async def _stream_parquet(folder: Path, size_bytes: int) -> AsyncIterator[bytes]:
    with tempfile.TemporaryFile(dir=folder) as out:
        with _open_lines(folder, size_bytes) as lines:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service.jobs.parquet", str(size_bytes)), stdin=lines, stdout=out
            )
            try:
                code = await child.wait()
            finally:
                if child.returncode is None:
                    child.kill()
        if code:
            raise Internal("the results cannot be written as Parquet now")
        out.seek(0)
        while data := await asyncio.to_thread(out.read, READ_BYTES):
            yield data


def _open_lines(folder: Path, size_bytes: int) -> BinaryIO:
    return (folder / RESULTS if size_bytes else Path(os.devnull)).open("rb")


def _read_weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
