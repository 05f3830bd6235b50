"""A job's folder: the images of a batch in one file, and one line per item that says where its bytes are.

Everything a batch writes goes into this folder under names of our own; a caller's names are only ever data.
Written by one thread while the body arrives, then read in order while it is scored.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from service.errors import ServiceError, TooLarge
from service.jobs.items import Item, ItemId, describe_error
from service.jobs.storage import storage_errors

IMAGES = "images"
ITEMS = "items"
WRITE_BUFFER_BYTES = 1 << 20
CHECK_EVERY_BYTES = 16 << 20  # how much is written between two looks at the room there is

item_encoder = msgspec.json.Encoder()
item_decoder = msgspec.json.Decoder(Item)


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """The settings a batch is read under, all in bytes but `max_items`."""

    max_batch_bytes: int
    max_items: int
    max_image_bytes: int


class Spool:
    """Takes images one after the other: `begin`, any number of `write`, then `end`.

    `check_room(bytes)` is asked before the spool grows to that size, and raises StorageFull. The digest is
    of the items' names and bytes, whatever the body around them looked like.
    """

    def __init__(self, folder: Path, limits: SpoolLimits, check_room: Callable[[int], None]) -> None:
        self.limits = limits
        self.folder = folder
        self.count = 0
        self.size_bytes = 0
        self._check_room = check_room
        self._checked_bytes = 0
        self._digest = hashlib.sha256()
        self._images: BinaryIO = (folder / IMAGES).open("wb", WRITE_BUFFER_BYTES)
        self._items: BinaryIO = (folder / ITEMS).open("wb", WRITE_BUFFER_BYTES)
        self._id: ItemId = None
        self._start = 0
        self._error: ServiceError | None = None
        self._image_digest = hashlib.sha256()

    def begin(self, id: ItemId) -> None:
        """The next item's name; raises TooLarge when the batch has too many items."""
        self.check_count(self.count + 1)
        self._id, self._start, self._error = id, self.size_bytes, None
        self._image_digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        """More bytes of this item; one over SERVE_MAX_IMAGE_BYTES becomes an error of its own.

        Raises TooLarge when the batch is over its limit, StorageFull when the disk is.
        """
        if self._error is not None:
            return
        if self.size_bytes - self._start + len(data) > self.limits.max_image_bytes:
            limit = f"the limit is {self.limits.max_image_bytes} bytes (SERVE_MAX_IMAGE_BYTES)"
            self.fail(TooLarge(f"the image is too large, {limit}"))
            return
        self.check_size(self.size_bytes + len(data))
        self.size_bytes += len(data)
        self._image_digest.update(data)
        with storage_errors():
            self._images.write(data)

    def fail(self, error: ServiceError) -> None:
        """This item has no usable bytes; its line will say why. Still call `end`."""
        self._error = error
        self.size_bytes = self._start
        with storage_errors():
            self._images.seek(self._start)
            self._images.truncate()

    def end(self) -> None:
        """The item is complete."""
        if self._error is None:
            self.add(Item(self._id, self._start, self.size_bytes - self._start))
        else:
            self.add(Item(self._id, error=describe_error(self._error)))

    def check_count(self, count: int) -> None:
        """Raises TooLarge for more items than SERVE_MAX_BATCH_ITEMS."""
        if count > self.limits.max_items:
            limit = f"the limit is {self.limits.max_items} (SERVE_MAX_BATCH_ITEMS)"
            raise TooLarge(f"the batch has {count} or more images, {limit}")

    def check_size(self, size_bytes: int) -> None:
        """Raises TooLarge or StorageFull where a spool of that size cannot be."""
        if size_bytes > self.limits.max_batch_bytes:
            limit = f"the limit is {self.limits.max_batch_bytes} bytes (SERVE_MAX_BATCH_BYTES)"
            raise TooLarge(f"the batch has {size_bytes} or more bytes, {limit}")
        if size_bytes > self._checked_bytes:
            self._check_room(size_bytes + CHECK_EVERY_BYTES)
            self._checked_bytes = size_bytes + CHECK_EVERY_BYTES

    def finish(self, *, durable: bool) -> str:
        """All items are here: flush (to the disk itself if `durable`) and return the digest, hex."""
        with storage_errors():
            for file in (self._images, self._items):
                file.flush()
                if durable:
                    os.fsync(file.fileno())
        if durable:
            sync_folder(self.folder)
        self.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close both files, whatever state they are in."""
        for file in (self._images, self._items):
            try:
                file.close()
            except OSError:  # what is buffered cannot be written: the folder is about to be removed
                continue

    def add(self, item: Item) -> None:
        """An item whose bytes, if any, are in the spool or in a source."""
        self.count += 1
        named = msgspec.structs.replace(item, offset=0)
        self._digest.update(item_encoder.encode(named) + self._image_digest.digest())
        with storage_errors():
            self._items.write(item_encoder.encode(item) + b"\n")


def sync_folder(folder: Path) -> None:
    """Make the names of the files in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
