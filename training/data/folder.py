"""Training from image files: scale, crop and flip in the workers that decode, the rest on the device.

He et al. 2015, section 3.4: the shorter side sampled in [256, 480], a random 224 crop, a random mirror image.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.card import Preprocess
from models.preprocess import Crop, ViewPlan, cut_views, plan_center, resized_size
from training.data.listing import Listing
from training.data.reading import BrokenFiles, read_views
from training.data.served import Pixels
from training.data.source import Batch, Finisher
from training.data.statistics import Statistics
from training.distributed import Ranks
from training.randomness import Stream, derive_seed
from training.recipe import Recipe
from training.sampler import batch_indices


@dataclass(frozen=True, slots=True)
class RandomCut:
    """A training view: what is drawn depends on the recipe's seed and the image's place alone."""

    recipe: Recipe
    preprocess: Preprocess

    def __call__(self, image: Pixels, place: int) -> Pixels:
        """Image uint8 [H, W, 3] -> view uint8 [crop, crop, 3]; only the crop's source is resized."""
        augment = self.recipe.augment
        random = np.random.default_rng(derive_seed(self.recipe.run.seed, Stream.CUT, place))
        low, high = augment.shorter_side_px
        shorter = int(random.integers(low, high + 1))
        height, width = resized_size(image.shape[0], image.shape[1], shorter)
        top = int(random.integers(height - augment.crop_px + 1))
        left = int(random.integers(width - augment.crop_px + 1))
        is_mirrored = augment.flip and bool(random.integers(2))
        crop = Crop(top, left, augment.crop_px, augment.crop_px, is_mirrored)
        return cut_views(image, ViewPlan(height, width, (crop,)), self.preprocess.interpolation)[0]


@dataclass(frozen=True, slots=True)
class CenterCut:
    """The view that `center` looks at, as the service cuts it."""

    preprocess: Preprocess

    def __call__(self, image: Pixels, place: int) -> Pixels:
        """Image uint8 [H, W, 3] -> view uint8 [crop, crop, 3]."""
        plan = plan_center(image.shape[0], image.shape[1], self.preprocess)
        return cut_views(image, plan, self.preprocess.interpolation)[0]


class FolderSource:
    """Batches of files decoded by `run.workers` processes, ahead of the device."""

    def __init__(
        self, listing: Listing, cut: RandomCut, statistics: Statistics, broken: BrokenFiles, ranks: Ranks
    ) -> None:
        self._listing, self._cut, self._broken, self._ranks = listing, cut, broken, ranks
        self._recipe = cut.recipe
        self._finisher = Finisher(statistics, cut.recipe, ranks)

    @property
    def images(self) -> int:
        return len(self._listing)

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        rows = (self._rows(step) for step in range(first_step, last_step))
        workers, device = self._recipe.run.workers, self._ranks.device
        loaded = read_views(self._listing, rows, self._cut, self._broken, workers)
        for step, views in enumerate(loaded, start=first_step):
            pixels = views.views.to(device, non_blocking=True)
            yield self._finisher.finish(pixels, views.targets.to(device, non_blocking=True), step)

    def _rows(self, step: int) -> list[tuple[int, int]]:
        """(index, place) of this process's share of step `step`."""
        batch = self._recipe.optimizer.batch
        first, last = self._ranks.share(batch)
        indices = batch_indices(self._recipe.run.seed, step, batch, self.images)[first:last].tolist()
        return list(zip(indices, range(step * batch + first, step * batch + last), strict=True))
