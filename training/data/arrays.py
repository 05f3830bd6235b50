"""A labelled set of equal-sized images held in memory, and its deterministic split."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.randomness import Stream, make_generator


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """`images` uint8 [N, H, W, 3], RGB; `targets` int64 [N]; `labels` names the K classes."""

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def pick(self, indices: NDArray[np.int64]) -> "LabelledImages":
        """The images at `indices`, in that order."""
        return LabelledImages(self.images[indices], self.targets[indices], self.labels)


def split_validation(
    data: LabelledImages, validation: int, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Part `data` at random (by `seed`) into training and `validation` images, each in original order.

    The paper's CIFAR-10 split is 45,000/5,000 (section 4.2); which images it held out is not stated.
    """
    order = torch.randperm(len(data), generator=make_generator(seed, Stream.SPLIT)).numpy()
    return data.pick(np.sort(order[validation:])), data.pick(np.sort(order[:validation]))
