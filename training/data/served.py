"""Images as the service would see them: encoded, decoded by models.decode, upright uint8 [H, W, 3]."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.decode import DecodeLimits, decode_image
from training.data.arrays import LabelledImages

Pixels = NDArray[np.uint8]


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


def encode_png(image: Pixels) -> bytes:
    """A PNG of an image uint8 [H, W, 3]."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", compress_level=1)
    return data.getvalue()
