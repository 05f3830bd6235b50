"""Reads a spooled batch back in order: some items at a time, with their bytes, off the event loop."""

import asyncio
import os
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from service.jobs.items import Item
from service.jobs.spool import IMAGES, ITEMS, item_decoder

CHUNK_ITEMS = 64
CHUNK_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class LoadedItem:
    """One item, its place in the batch, and its encoded image (b"" where it is not in the spool)."""

    index: int
    item: Item
    image: bytes


async def read_items(folder: Path, first: int = 0) -> AsyncIterator[LoadedItem]:
    """The items of a job's folder from number `first` on; two chunks (or two images) are held ready."""
    chunks = _read_chunks(folder, first)
    coming = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
    try:
        while chunk := await asyncio.shield(coming):
            coming = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
            for loaded in chunk:
                yield loaded
    finally:
        await asyncio.wait([coming])  # a generator that runs in a thread cannot be closed
        chunks.close()


def iterate_items(folder: Path, first: int = 0) -> Iterator[tuple[int, Item]]:
    """Number and line of every item from `first` on."""
    with (folder / ITEMS).open("rb") as lines:
        for index, line in enumerate(lines):
            if index >= first:
                yield index, item_decoder.decode(line)


def _read_chunks(folder: Path, first: int) -> Generator[list[LoadedItem], None, None]:
    chunk: list[LoadedItem] = []
    held_bytes = 0
    with (folder / IMAGES).open("rb") as images:
        for index, item in iterate_items(folder, first):
            image = os.pread(images.fileno(), item.size, item.offset) if item.size else b""
            chunk.append(LoadedItem(index, item, image))
            held_bytes += len(image)
            if len(chunk) >= CHUNK_ITEMS or held_bytes >= CHUNK_BYTES:
                yield chunk
                chunk, held_bytes = [], 0
    if chunk:
        yield chunk
