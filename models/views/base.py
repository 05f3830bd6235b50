"""What a view policy is: which views of an image to look at, and how their scores become one.

A policy is a generator of looks: it yields the views it wants next and is sent the engine's outputs for
them, in order; it returns the merged scores. One look for most policies, up to two for adaptive. He et al.
2015, section 3.4 (10-crop, fully convolutional multi-scale).
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.card import MergeRule, PolicyCard, PoolRule, Preprocess

View = NDArray[np.uint8]  # [H, W, 3]
PAPER_SCALES = (224, 256, 384, 480, 640)


class BadViewOption(ValueError):
    """A view option of the caller's is out of range; the message names it, its value and the limit."""


class UnknownPolicy(BadViewOption):
    """No view policy has that name; the message lists those that exist."""


class ViewTooLarge(ValueError):
    """A view of this image would hold more pixels than the limit; nothing was resized."""


@dataclass(frozen=True, slots=True)
class ViewShape:
    """How many views of one size: what a look costs is predicted from this before a pixel is touched."""

    count: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a view lies in the upright image, in its pixels, unrounded; mirrored left to right, or not."""

    left: float
    top: float
    right: float
    bottom: float
    is_mirrored: bool


@dataclass(frozen=True, slots=True)
class ViewOutput:
    """The engine's answer for one view: `logits` float32 [K]; `features` float32 [C, h, w] or None.

    `members`: of an ensemble, what each member gave, float32 [M, K].
    """

    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None
    members: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class MemberLayer:
    """The last layer of an ensemble's member: its weight float32 [K, C_m], bias float32 [K].

    `share`: of the ensemble's scores; all members' sum to 1.
    """

    share: float
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Classifier:
    """The network's last layer, for scores of single windows: weight float32 [K, C], bias float32 [K].

    `members`: an ensemble's, whose features lie side by side in C; empty for one network.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    members: tuple[MemberLayer, ...] = ()


def always(shapes: tuple[ViewShape, ...]) -> bool:
    """There is time for any second look."""
    return True


@dataclass(frozen=True, slots=True)
class ViewContext:
    """Everything a policy may know besides the pixels.

    `window` is the side of the last feature map at the native crop; `fitted` is the card's entry for this
    policy; `scales` are the paper's scales asked for (multi_scale). `may_look_again` answers, at the time it
    is called, whether the request's deadline leaves room for a second look of these shapes (adaptive).
    `keeps_features` asks every look for its feature maps, for an activation map; scores do not change.
    """

    preprocess: Preprocess
    window: int
    classifier: Classifier
    fitted: PolicyCard
    merge: MergeRule
    pool: PoolRule
    max_view_pixels: int
    scales: tuple[int, ...] = PAPER_SCALES
    may_look_again: Callable[[tuple[ViewShape, ...]], bool] = always
    keeps_features: bool = False


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
    """Views to compute next, each uint8 [H, W, 3]; `features` says whether the last feature map is needed.

    `places`: where each view lies in the upright image, in the order of `views`; only for a context that
    keeps features.
    """

    views: tuple[View, ...]
    features: bool
    places: tuple[Place, ...] = ()


Looks = Generator[Look, Sequence[ViewOutput], Scores]


class ViewPolicy(Protocol):
    """One value of the request parameter `tta`; the module's POLICY.

    `takes_scales`: whether it looks at the context's `scales`; `looks_again`: whether it may ask the context
    for time for a second look.
    """

    name: str
    takes_scales: bool = False
    looks_again: bool = False

    def shapes(self, height: int, width: int, context: ViewContext) -> tuple[ViewShape, ...]:
        """The first look at an upright image of this size, without its pixels.

        Raises BadViewOption, ViewTooLarge.
        """
        ...

    def cost(self, height: int, width: int, context: ViewContext) -> float:
        """The mean cost of an image of this size in native views, by pixels: 10 for ten_crop.

        Orders policies where no milliseconds are measured yet; raises as `shapes` does.
        """
        ...

    def look(self, image: NDArray[np.uint8], context: ViewContext) -> Looks:
        """image: uint8 [H, W, 3], upright. Yields Looks, returns Scores; raises as `shapes` does, at once."""
        ...
