"""The mean that is subtracted and the deviation that is divided by, from the training split alone."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.data.arrays import LabelledImages
from training.recipe import DataRecipe

CHUNK = 5000  # images held as float64 at a time: 5,000 * 3,072 * 8 bytes = 123 MB


@dataclass(frozen=True, slots=True)
class Statistics:
    """`mean`: float32 [3, 1, 1], or [3, H, W] per pixel; `std`: float32 [3, 1, 1]; pixels in 0..1."""

    mean: Tensor
    std: Tensor


def measure_statistics(data: LabelledImages, recipe: DataRecipe) -> Statistics:
    """Mean per pixel or per channel and, if the recipe divides by it, the deviation per channel."""
    total = np.zeros(data.images.shape[1:], np.float64)  # [H, W, 3]
    squares = np.zeros_like(total)
    for start in range(0, len(data), CHUNK):
        chunk = data.images[start : start + CHUNK].astype(np.float64) / 255
        total += chunk.sum(axis=0)
        squares += np.square(chunk).sum(axis=0)
    pixel = total / len(data)
    channel = pixel.mean(axis=(0, 1))  # [3]
    std = np.sqrt(squares.mean(axis=(0, 1)) / len(data) - channel**2)
    mean = pixel if recipe.mean == "pixel" else channel.reshape(1, 1, 3)
    divisor = std if recipe.std == "channel" else np.ones(3)
    return Statistics(
        torch.from_numpy(mean.transpose(2, 0, 1).copy()).float(),  # [H, W, 3] -> [3, H, W]
        torch.from_numpy(divisor.reshape(3, 1, 1)).float(),
    )
