"""Augmentation of whole batches on the device, as one gather: no loop over images.

He et al. 2015, section 4.2: 4 pixels of zero padding on each side, a random crop of the original size, a
random horizontal flip. Padding comes after the mean is subtracted, so the border is the mean colour.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """images: uint8 [N, H, W, 3] -> float32 [N, 3, H, W], (x / 255 - mean) / std.

    mean: float32 [3, 1, 1] (per channel) or [3, H, W] (per pixel); std: float32 [3, 1, 1]; both in 0..1.
    """
    x = images.permute(0, 3, 1, 2).float()  # [N, 3, H, W], channels last in memory
    return x.div_(255).sub_(mean).div_(std)


def add_lighting(x: Tensor, shifts: Tensor) -> Tensor:
    """Shift the colour of each image as a whole. x: float32 [N, 3, H, W]; shifts: float32 [N, 3]."""
    return x + shifts[:, :, None, None]


def draw_lighting(count: int, deviation: float, principal: Tensor, generator: torch.Generator) -> Tensor:
    """PCA lighting: along each principal component of RGB a normal multiple of its eigenvalue.

    principal: float32 [3, 3], eigenvectors in columns times their eigenvalues; returns float32 [count, 3].
    Krizhevsky et al. 2012, section 4.1 (deviation 0.1).
    """
    multiples = torch.randn(count, 3, generator=generator) * deviation
    return multiples @ principal.T


def draw_mix(alpha: float, seed: int) -> float:
    """The share of the first image in a mixup batch, from Beta(alpha, alpha), at least a half.

    Zhang et al. 2018, "mixup"; one share a batch, each image paired with its mirror place in the batch.
    """
    if alpha == 0:
        return 1.0
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    return max(share, 1 - share)


@dataclass(frozen=True, slots=True)
class Crops:
    """Where each image of a batch is cut and whether it is mirrored: int64, int64 and bool, each [N, 1]."""

    top: Tensor
    left: Tensor
    mirrored: Tensor

    def rows(self, first: int, last: int, device: torch.device) -> "Crops":
        """The part of images [first, last) on `device`: one process's share of a batch drawn as a whole."""
        parts = (tensor[first:last].to(device) for tensor in (self.top, self.left, self.mirrored))
        return Crops(*parts)


def draw_crops(count: int, pad_px: int, is_flipping: bool, generator: torch.Generator) -> Crops:
    """Draw for `count` images: offsets uniform in [0, 2 * pad_px], mirrored one time in two."""
    top = torch.randint(2 * pad_px + 1, (count, 1), generator=generator)
    left = torch.randint(2 * pad_px + 1, (count, 1), generator=generator)
    mirrored = torch.randint(2, (count, 1), generator=generator).bool()
    return Crops(top, left, mirrored & is_flipping)


def crop_and_flip(x: Tensor, pad_px: int, crops: Crops) -> Tensor:
    """Pad x, float32 [N, C, H, W], with zeros and cut each image as drawn; the size stays."""
    n, _, height, width = x.shape
    columns = torch.arange(width, device=x.device).expand(n, width)
    columns = torch.where(crops.mirrored, columns.flip(1), columns) + crops.left  # [N, W]
    rows = torch.arange(height, device=x.device) + crops.top  # [N, H]
    image = torch.arange(n, device=x.device)[:, None, None]
    padded = F.pad(x, (pad_px, pad_px, pad_px, pad_px))
    cut = padded[image, :, rows[:, :, None], columns[:, None, :]]  # [N, H, W, C]
    return cut.permute(0, 3, 1, 2)  # [N, C, H, W], channels last in memory
