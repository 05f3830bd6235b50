"""Images as the service would see them: encoded, decoded by models.decode, upright uint8 [H, W, 3]."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.decode import DecodeLimits, ImageError, decode_image
from training.data.arrays import LabelledImages
from training.data.listing import Listing
from training.errors import DataMissing

Pixels = NDArray[np.uint8]
OWN_FILES = DecodeLimits(max_bytes=200_000_000, max_pixels=200_000_000)  # one's own, not a stranger's


class Unreadable(Exception):
    """A file cannot be read, or is no image that the service takes; the message is the reason alone."""


def read_image(path: Path) -> Pixels:
    """The pixels of an image file as the service would see them; raises Unreadable."""
    try:
        return decode_image(path.read_bytes(), OWN_FILES).pixels
    except OSError as err:
        raise Unreadable(err.strerror) from err
    except ImageError as err:
        raise Unreadable(str(err)) from err


class ServedImages(Protocol):
    """A labelled set to be looked at as requests are, in order, as often as wanted."""

    @property
    def targets(self) -> NDArray[np.int64]:
        """The true class of each image: int64 [N]."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the K classes."""
        ...

    def __iter__(self) -> Iterator[Pixels]: ...

    def sample(self, count: int) -> Iterator[Pixels]:
        """At most `count` of the images, evenly over the set."""
        ...

    def sample_files(self, count: int) -> list[bytes]:
        """The same, encoded."""
        ...


@dataclass(frozen=True, slots=True)
class ServedArray:
    """Images in memory, sent through a PNG (lossless) and the service's decoder."""

    data: LabelledImages

    @property
    def targets(self) -> NDArray[np.int64]:
        return self.data.targets

    @property
    def labels(self) -> tuple[str, ...]:
        return self.data.labels

    def __iter__(self) -> Iterator[Pixels]:
        return (decode_image(encode_png(image), DecodeLimits()).pixels for image in self.data.images)

    def sample(self, count: int) -> Iterator[Pixels]:
        return iter(ServedArray(self.data.pick(spread(len(self.targets), count))))

    def sample_files(self, count: int) -> list[bytes]:
        return [encode_png(self.data.images[index]) for index in spread(len(self.targets), count)]


@dataclass(frozen=True, slots=True)
class ServedFiles:
    """Image files, decoded one after the other; raises DataMissing for a broken one."""

    listing: Listing

    @property
    def targets(self) -> NDArray[np.int64]:
        return self.listing.targets

    @property
    def labels(self) -> tuple[str, ...]:
        return self.listing.labels

    def __iter__(self) -> Iterator[Pixels]:
        for path in self.listing.paths:
            try:
                yield read_image(path)
            except Unreadable as err:
                raise DataMissing(f"{path} cannot be decoded ({err}); remove it") from err

    def sample(self, count: int) -> Iterator[Pixels]:
        return iter(ServedFiles(self._pick(count)))

    def sample_files(self, count: int) -> list[bytes]:
        return [path.read_bytes() for path in self._pick(count).paths]

    def _pick(self, count: int) -> Listing:
        chosen = self.listing.pick(spread(len(self.listing), count))
        return chosen.pick(np.flatnonzero([is_readable(path) for path in chosen.paths]))


def spread(images: int, count: int) -> NDArray[np.int64]:
    """At most `count` indices, evenly over `images`."""
    return np.unique(np.linspace(0, images - 1, min(count, images)).astype(np.int64))


def leave_out_broken(listing: Listing, say: Callable[[str], None]) -> Listing:
    """The images that can be decoded; the others are named."""
    readable = [is_readable(path) for path in listing.paths]
    for path, is_kept in zip(listing.paths, readable, strict=True):
        if not is_kept:
            say(f"skipped {path}: it cannot be decoded")
    return listing.pick(np.flatnonzero(readable))


def require_readable(listing: Listing) -> None:
    """See that every class has an image that can be decoded; raises DataMissing naming one that has none."""
    for target, label in enumerate(listing.labels):
        members = np.flatnonzero(listing.targets == target)
        if not any(is_readable(listing.paths[index]) for index in members):
            raise DataMissing(
                f"class {label!r} has no image to train on that can be decoded; fill its folder or remove it"
            )


def is_readable(path: Path) -> bool:
    """Whether the service's decoder takes this file."""
    try:
        read_image(path)
    except Unreadable:
        return False
    return True


def encode_png(image: Pixels) -> bytes:
    """A PNG of an image uint8 [H, W, 3]."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", compress_level=1)
    return data.getvalue()
