"""The mean that is subtracted, the deviation that is divided by, the colours' principal components.

All from the training split alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.recipe import DataRecipe


@dataclass(frozen=True, slots=True)
class Statistics:
    """`mean`: float32 [3, 1, 1], or [3, H, W] per pixel; `std`: float32 [3, 1, 1]; pixels in 0..1.

    `principal`: float32 [3, 3], the eigenvectors of the colours' covariance in columns, each times its
    eigenvalue (PCA lighting).
    """

    mean: Tensor
    std: Tensor
    principal: Tensor


def measure_statistics(blocks: Iterable[NDArray[np.uint8]], recipe: DataRecipe) -> Statistics:
    """From images of one size, uint8 [n, H, W, 3] at a time; at least one image."""
    count, total, products = 0, np.float64(0), np.zeros((3, 3))
    for block in blocks:
        pixels = block.astype(np.float64) / 255
        colours = pixels.reshape(-1, 3)
        count, total = count + len(block), total + pixels.sum(axis=0)  # [H, W, 3]
        products += colours.T @ colours
    pixel = np.asarray(total) / count
    channel = pixel.mean(axis=(0, 1))  # [3]
    covariance = products / (count * pixel.shape[0] * pixel.shape[1]) - np.outer(channel, channel)
    values, vectors = np.linalg.eigh(covariance)
    mean = pixel if recipe.mean == "pixel" else channel.reshape(1, 1, 3)
    std = np.sqrt(np.diag(covariance)) if recipe.std == "channel" else np.ones(3)
    return Statistics(
        torch.from_numpy(mean.transpose(2, 0, 1).copy()).float(),  # [H, W, 3] -> [3, H, W]
        torch.from_numpy(std.reshape(3, 1, 1)).float(),
        torch.from_numpy(vectors * values).float(),
    )
