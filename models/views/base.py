"""What a view policy is: which views of an image to look at, and how their scores become one.

A policy is a generator of looks: it yields the views it wants next and is sent the engine's outputs for
them, in order; it returns the merged scores. One look for most policies, up to two for adaptive. He et al.
2015, section 3.4 (10-crop, fully convolutional multi-scale).
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.card import MergeRule, PolicyCard, PoolRule, Preprocess

View = NDArray[np.uint8]  # [H, W, 3]
PAPER_SCALES = (224, 256, 384, 480, 640)


class BadViewOption(ValueError):
    """A view option of the caller's is out of range; the message names it, its value and the limit."""


class ViewTooLarge(ValueError):
    """A view would have more pixels than `max_view_pixels`; the message names it, its size and the limit."""


@dataclass(frozen=True, slots=True)
class ViewShape:
    """How many views of one size: what a look costs is predicted from this before a pixel is touched."""

    count: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class ViewOutput:
    """The engine's answer for one view: `logits` float32 [K]; `features` float32 [C, h, w] or None."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Classifier:
    """The network's last layer, for scores of single windows: weight float32 [K, C], bias float32 [K]."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ViewContext:
    """Everything a policy may know besides the pixels.

    `window` is the side of the last feature map at the native crop; `fitted` is the card's entry for this
    policy; `scales` are the paper's scales asked for (multi_scale). `may_look_again` answers, at the time it
    is called, whether the request's deadline leaves room for a second look of these shapes (adaptive).
    """

    preprocess: Preprocess
    window: int
    classifier: Classifier
    fitted: PolicyCard
    merge: MergeRule
    pool: PoolRule
    max_view_pixels: int
    scales: tuple[int, ...] = PAPER_SCALES


@dataclass(frozen=True, slots=True)
class Scores:
    """Merged scores of one image.

    `logits`: float32 [K], raw (mean of the views' logits under either merge rule). `probabilities`: float32
    [K], sums to 1, temperature applied. `views`: how many views were looked at.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    views: int


@dataclass(frozen=True, slots=True)
class Look:
    """Views to compute next, each uint8 [H, W, 3]; `features` says whether the last feature map is needed."""

    views: tuple[View, ...]
    features: bool


Looks = Generator[Look, Sequence[ViewOutput], Scores]


class ViewPolicy(Protocol):
    """One value of the request parameter `tta`; the module's POLICY."""

    name: str

    def shapes(self, height: int, width: int, context: ViewContext) -> tuple[ViewShape, ...]:
        """The views an image of this size needs, without its pixels; raises BadViewOption, ViewTooLarge."""
        ...

    def look(self, image: NDArray[np.uint8], context: ViewContext) -> Looks:
        """image: uint8 [H, W, 3], oriented. Yields Looks, returns Scores."""
        ...
