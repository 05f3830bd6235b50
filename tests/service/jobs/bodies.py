"""Read bodies as the service does: fed piece by piece to a parser in a thread."""

import asyncio
import io
import tarfile
import zipfile
from pathlib import Path

from service.jobs.body import BodyPipe
from service.jobs.items import Item
from service.jobs.reading.formats import SNIFFED_BYTES, spool_body
from service.jobs.spool import IMAGES, ITEMS, Spool, SpoolLimits, item_decoder

LIMITS = SpoolLimits(max_batch_bytes=64 << 20, max_items=1_000, max_image_bytes=1 << 20)


def read_body(
    folder: Path,
    body: bytes,
    content_type: str = "application/octet-stream",
    limits: SpoolLimits = LIMITS,
    piece_bytes: int = 10_007,
) -> list[tuple[Item, bytes]]:
    """The items a body holds, each with its bytes; raises what the reader raises."""
    digest_body(folder, body, content_type, limits, piece_bytes)
    images = (folder / IMAGES).read_bytes()
    lines = (folder / ITEMS).read_bytes().splitlines()
    items = [item_decoder.decode(line) for line in lines]
    return [(item, images[item.offset : item.offset + item.size]) for item in items]


def digest_body(
    folder: Path,
    body: bytes,
    content_type: str = "application/octet-stream",
    limits: SpoolLimits = LIMITS,
    piece_bytes: int = 10_007,
) -> str:
    """Spool a body and give its digest."""

    async def run() -> str:
        pipe, spool = BodyPipe(), Spool(folder, limits, lambda _: None)

        def parse() -> None:
            spool_body(pipe.peek(SNIFFED_BYTES), io.BufferedReader(pipe), spool, content_type)

        parsing = asyncio.ensure_future(asyncio.to_thread(parse))
        parsing.add_done_callback(lambda _: pipe.abandon())
        for start in range(0, len(body), piece_bytes):
            await pipe.feed(body[start : start + piece_bytes])
        pipe.finish()
        try:
            await parsing
            return spool.finish(durable=False)
        finally:
            spool.close()

    folder.mkdir(parents=True, exist_ok=True)
    return asyncio.run(run())


def make_zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip by the standard library."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def make_tar(files: dict[str, bytes], mode: str = "w", tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar by the standard library; mode "w:gz" packs it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode, format=tar_format) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def make_multipart(files: list[tuple[str, bytes]], boundary: str = "xyz", field: str = "img") -> bytes:
    """A multipart body as curl writes it."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()
