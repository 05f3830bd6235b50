"""Reads a spooled batch back in order: some items at a time, with their bytes, off the event loop."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from service.jobs.items import Item
from service.jobs.spool import IMAGES, ITEMS, item_decoder

CHUNK_BYTES = 2 << 20


class LoadedItem(msgspec.Struct, frozen=True):
    """One item, its place in the batch, and its encoded image (b"" where it is not in the spool)."""

    index: int
    item: Item
    image: bytes


async def read_items(
    folder: Path, count: Callable[[], int], first: int = 0
) -> AsyncIterator[list[LoadedItem]]:
    """The items of a job's folder from number `first` on, `count()` at a time; as many more are read."""
    with (folder / IMAGES).open("rb") as images:
        items = iterate_items(folder, first)
        coming = asyncio.ensure_future(asyncio.to_thread(_read_some, items, images.fileno(), count()))
        try:
            while some := await asyncio.shield(coming):
                coming = asyncio.ensure_future(asyncio.to_thread(_read_some, items, images.fileno(), count()))
                yield some
        finally:
            await asyncio.wait([coming])  # a generator that runs in a thread cannot be closed
            items.close()


def iterate_items(folder: Path, first: int = 0) -> Generator[tuple[int, Item], None, None]:
    """Number and line of every item from `first` on."""
    with (folder / ITEMS).open("rb") as lines:
        for index, line in enumerate(lines):
            if index >= first:
                yield index, item_decoder.decode(line)


def _read_some(items: Iterator[tuple[int, Item]], images: int, count: int) -> list[LoadedItem]:
    taken: list[tuple[int, Item]] = []
    held_bytes = 0
    for index, item in islice(items, count):
        taken.append((index, item))
        held_bytes += item.size
        if held_bytes >= CHUNK_BYTES:
            break
    spooled = [item for _, item in taken if item.size and not item.source]
    start, end = (spooled[0].offset, spooled[-1].offset + spooled[-1].size) if spooled else (0, 0)
    data = os.pread(images, end - start, start)  # they lie in order and without gaps

    def find_image(item: Item) -> bytes:
        return b"" if item.source else data[item.offset - start : item.offset - start + item.size]

    return [LoadedItem(index, item, find_image(item)) for index, item in taken]
