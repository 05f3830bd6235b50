"""A recipe and a data directory -> everything the loop needs of the data.

cifar10: the set in memory. imagenet: train/ and val/. folder: a folder a class, a part of each held out.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.card import Preprocess
from models.networks import find_architecture
from models.repository import read_version
from training.data.arrays import LabelledImages, split_validation
from training.data.cifar10 import load_cifar10
from training.data.folder import CenterCut, FolderSource, RandomCut
from training.data.listing import Listing, list_folder, list_imagenet, split_listing
from training.data.reading import BrokenFiles, read_once
from training.data.served import require_readable
from training.data.source import MemorySource, Source
from training.data.statistics import Statistics, measure_statistics
from training.distributed import Ranks
from training.errors import BadRecipe
from training.measure import BATCH
from training.randomness import Stream, make_generator
from training.recipe import Recipe

HELD_OUT = (0.15, 0.15)  # of each class of a folder: to choose by, and to test on
STATISTICS_IMAGES = 10_000  # of a set in folders that mean and deviation are measured on
CHUNK = 5000  # images in memory that are float64 at a time: 5,000 * 3,072 * 8 bytes = 123 MB

LabelledViews = Iterable[tuple[Tensor, Tensor]]  # uint8 [n, H, W, 3] and int64 [n]


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be learnt. `targets`: int64 [N], the classes of the training images.

    `validation` gives this process's part of the validation views anew each time; None without a split.
    `test`: the same of the test images, where the recipe watches them.
    """

    labels: tuple[str, ...]
    targets: NDArray[np.int64]
    statistics: Statistics
    source: Source
    validation: Callable[[], LabelledViews] | None
    test: Callable[[], LabelledViews] | None = None


@dataclass(frozen=True, slots=True)
class Listings:
    """Files to train on, to choose by and to test on (None where the validation images are all there is)."""

    training: Listing
    validation: Listing
    test: Listing | None


def open_task(
    recipe: Recipe, data_root: Path, ranks: Ranks, say: Callable[[str], None], fixed: Statistics | None = None
) -> Task:
    """Open the data of `recipe`; `fixed` in place of measured statistics. Raises DataMissing."""
    if recipe.data.dataset == "cifar10":
        return _open_memory(recipe, data_root, ranks, fixed)
    return _open_files(recipe, list_files(recipe, data_root), ranks, say, fixed)


def load_splits(recipe: Recipe, data_root: Path) -> tuple[LabelledImages, LabelledImages]:
    """The training and validation images of CIFAR-10; the test set is not touched."""
    everything, _ = load_cifar10(data_root)
    return split_validation(everything, recipe.data.validation, recipe.run.seed)


def list_files(recipe: Recipe, data_root: Path) -> Listings:
    """The files of `recipe`'s data set; raises DataMissing."""
    if recipe.data.dataset == "imagenet":
        return Listings(*list_imagenet(data_root), None)
    return Listings(*split_listing(list_folder(data_root), HELD_OUT, recipe.run.seed))


def preprocess_of(recipe: Recipe) -> Preprocess:
    """How images are prepared for measuring and serving: the family's way, at the recipe's native size.

    A run begun from a model version prepares them as that does.
    Mean and deviation are those of the statistics, not those here.
    """
    if recipe.start is not None:
        return read_version(Path(recipe.start)).card.preprocess
    usual = find_architecture(recipe.network).preprocess
    native = recipe.data.native_px
    if native is None:
        return usual
    return replace(usual, crop_px=native, resize_px=native * usual.resize_px // usual.crop_px)


def _open_memory(recipe: Recipe, data_root: Path, ranks: Ranks, fixed: Statistics | None) -> Task:
    everything, test = load_cifar10(data_root)
    training, validation = split_validation(everything, recipe.data.validation, recipe.run.seed)
    blocks = (training.images[start : start + CHUNK] for start in range(0, len(training), CHUNK))
    statistics = fixed or measure_statistics(blocks, recipe.data)
    part, watched = (one.pick(np.arange(ranks.rank, len(one), ranks.world)) for one in (validation, test))
    return Task(
        training.labels,
        training.targets,
        statistics,
        MemorySource(training, statistics, recipe, ranks),
        (lambda: _views_of(part)) if len(validation) else None,
        (lambda: _views_of(watched)) if recipe.run.watch_test else None,
    )


def _views_of(data: LabelledImages) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(data), BATCH):
        part = slice(start, start + BATCH)
        yield torch.from_numpy(data.images[part]), torch.from_numpy(data.targets[part])


def _open_files(
    recipe: Recipe, files: Listings, ranks: Ranks, say: Callable[[str], None], fixed: Statistics | None
) -> Task:
    broken = BrokenFiles(recipe.data.skip_broken, say, set())
    if broken.is_skipping:
        require_readable(files.training)
    center = CenterCut(preprocess_of(recipe))
    if recipe.data.mean == "pixel" and recipe.augment.crop_px != center.preprocess.crop_px:
        raise BadRecipe(
            f"a mean per pixel needs one size: augment.crop_px is {recipe.augment.crop_px}, "
            f"the native view {center.preprocess.crop_px} (data.native_px)"
        )
    workers = recipe.run.workers

    def validation() -> LabelledViews:
        part = range(ranks.rank, len(files.validation), ranks.world)
        batches = read_once(files.validation, part, center, broken, workers)
        return ((batch.views, batch.targets) for batch in batches if len(batch.targets))

    statistics = fixed or _measure_files(recipe, files.training, center, broken)
    cut = RandomCut(recipe, center.preprocess)
    return Task(
        files.training.labels,
        files.training.targets,
        statistics,
        FolderSource(files.training, cut, statistics, broken, ranks),
        validation,
    )


def _measure_files(recipe: Recipe, listing: Listing, center: CenterCut, broken: BrokenFiles) -> Statistics:
    """Statistics of the centre views of at most STATISTICS_IMAGES training images."""
    order = torch.randperm(len(listing), generator=make_generator(recipe.run.seed, Stream.SPLIT))
    some = islice(order.tolist(), STATISTICS_IMAGES)
    batches = read_once(listing, some, center, broken, recipe.run.workers)
    return measure_statistics((batch.views.numpy() for batch in batches if len(batch.targets)), recipe.data)
