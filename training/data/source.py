"""The seam between data and loop: whatever can give the batch of a step, from any step on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from training.augment import crop_and_flip, draw_crops, normalise
from training.data.arrays import LabelledImages
from training.data.statistics import Statistics
from training.distributed import Ranks
from training.randomness import Stream, make_generator
from training.recipe import Recipe
from training.sampler import batch_indices


@dataclass(frozen=True, slots=True)
class Batch:
    """`x`: float32 [n, 3, H, W], normalised and augmented; `targets`: int64 [n]; n = this process's share."""

    x: Tensor
    targets: Tensor


class Source(Protocol):
    """Training images without end."""

    @property
    def images(self) -> int:
        """How many images make an epoch."""
        ...

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of steps [first_step, last_step), the same ones whatever first_step is."""
        ...


class MemorySource:
    """A whole set on the device, augmented there a batch at a time (CIFAR-10: 154 MB as bytes)."""

    def __init__(self, data: LabelledImages, statistics: Statistics, recipe: Recipe, ranks: Ranks) -> None:
        self._images = torch.from_numpy(data.images).to(ranks.device)  # uint8 [N, H, W, 3]
        self._targets = torch.from_numpy(data.targets).to(ranks.device)
        self._mean, self._std = statistics.mean.to(ranks.device), statistics.std.to(ranks.device)
        self._recipe, self._ranks = recipe, ranks

    @property
    def images(self) -> int:
        return len(self._targets)

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        for step in range(first_step, last_step):
            yield self._batch(step)

    def _batch(self, step: int) -> Batch:
        """Draw for the whole batch, then cut this process's share: any number of processes sees the same."""
        seed, batch = self._recipe.run.seed, self._recipe.optimizer.batch
        augment, device = self._recipe.augment, self._ranks.device
        first, last = self._ranks.share(batch)
        crops = draw_crops(
            batch, augment.pad_px, augment.flip, make_generator(seed, Stream.AUGMENT, step)
        ).rows(first, last, device)
        indices = batch_indices(seed, step, batch, self.images)[first:last].to(device)
        x = normalise(self._images[indices], self._mean, self._std)  # [n, 3, H, W]
        return Batch(crop_and_flip(x, augment.pad_px, crops), self._targets[indices])
