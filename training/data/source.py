"""The seam between data and loop: whatever can give the batch of a step, from any step on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from training.augment import add_lighting, crop_and_flip, draw_crops, draw_lighting, draw_mix, normalise
from training.data.arrays import LabelledImages
from training.data.statistics import Statistics
from training.distributed import Ranks
from training.randomness import Stream, derive_seed, make_generator
from training.recipe import Recipe
from training.sampler import batch_indices


@dataclass(frozen=True, slots=True)
class Batch:
    """`x`: float32 [n, 3, H, W], normalised and augmented; `targets`: int64 [n]; n = this process's share.

    `share`: image i is `share` of itself and 1 - `share` of image n - 1 - i (mixup); 1 without it.
    """

    x: Tensor
    targets: Tensor
    share: float = 1.0


class Source(Protocol):
    """Training images without end."""

    @property
    def images(self) -> int:
        """How many images make an epoch."""
        ...

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of steps [first_step, last_step), the same ones whatever first_step is."""
        ...


class Finisher:
    """What happens to every batch last, on the device: normalise, crop, lighting, mixup."""

    def __init__(self, statistics: Statistics, recipe: Recipe, ranks: Ranks) -> None:
        self._mean, self._std = statistics.mean.to(ranks.device), statistics.std.to(ranks.device)
        self._principal = statistics.principal / statistics.std.flatten()[:, None]
        self._recipe, self._ranks = recipe, ranks

    def finish(self, views: Tensor, targets: Tensor, step: int) -> Batch:
        """views: uint8 [n, H, W, 3] and targets int64 [n], this process's share of step `step`.

        Everything is drawn for the whole batch and this share cut from it: any number of processes draws
        the same.
        """
        augment, batch = self._recipe.augment, self._recipe.optimizer.batch
        first, last = self._ranks.share(batch)
        generator = make_generator(self._recipe.run.seed, Stream.AUGMENT, step)
        x = normalise(views, self._mean, self._std)  # [n, 3, H, W]
        if augment.pad_px:
            crops = draw_crops(batch, augment.pad_px, augment.flip, generator)
            x = crop_and_flip(x, augment.pad_px, crops.rows(first, last, x.device))
        if augment.lighting:
            shifts = draw_lighting(batch, augment.lighting, self._principal, generator)
            x = add_lighting(x, shifts[first:last].to(x.device))
        share = draw_mix(augment.mixup, derive_seed(self._recipe.run.seed, Stream.MIXUP, step))
        if share < 1:
            x = share * x + (1 - share) * x.flip(0)
        return Batch(x, targets, share)


class MemorySource:
    """A whole set on the device, augmented there a batch at a time (CIFAR-10: 154 MB as bytes)."""

    def __init__(self, data: LabelledImages, statistics: Statistics, recipe: Recipe, ranks: Ranks) -> None:
        self._images = torch.from_numpy(data.images).to(ranks.device)  # uint8 [N, H, W, 3]
        self._targets = torch.from_numpy(data.targets).to(ranks.device)
        self._finisher = Finisher(statistics, recipe, ranks)
        self._recipe, self._ranks = recipe, ranks

    @property
    def images(self) -> int:
        return len(self._targets)

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        seed, batch = self._recipe.run.seed, self._recipe.optimizer.batch
        first, last = self._ranks.share(batch)
        for step in range(first_step, last_step):
            indices = batch_indices(seed, step, batch, self.images)[first:last].to(self._ranks.device)
            yield self._finisher.finish(self._images[indices], self._targets[indices], step)
