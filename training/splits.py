"""Which data a recipe means, as export and evaluate see them: through the service's decoder."""

from collections.abc import Callable
from pathlib import Path

from training.data.arrays import split_validation
from training.data.cifar10 import load_cifar10
from training.data.served import ServedArray, ServedFiles, leave_out_broken
from training.evaluate import Split, Splits
from training.recipe import Recipe
from training.task import list_files

CIFAR10 = "CIFAR-10"


def open_splits(recipe: Recipe, data_root: Path, say: Callable[[str], None]) -> Splits:
    """Training, validation and test images of `recipe` for export; raises DataMissing.

    Broken test images that are to be skipped are named through `say`; training has named the others.
    """
    if recipe.data.dataset == "cifar10":
        return _open_cifar10(recipe, data_root)
    files = list_files(recipe, data_root)
    validation, test = files.validation, files.test
    if recipe.data.skip_broken:
        validation = leave_out_broken(validation, _nobody)
        test = None if test is None else leave_out_broken(test, say)
    return Splits(
        dataset="ImageNet" if recipe.data.dataset == "imagenet" else data_root.resolve().name,
        training=ServedFiles(files.training),
        validation=ServedFiles(validation),
        test=None if test is None else ServedFiles(test),
        trained_images=len(files.training),
    )


def open_test_split(data_root: Path) -> Split:
    """The 10,000 test images of CIFAR-10; raises DataMissing."""
    return Split(CIFAR10, "test", ServedArray(load_cifar10(data_root)[1]))


def _nobody(sentence: str) -> None:
    """Said already."""


def _open_cifar10(recipe: Recipe, data_root: Path) -> Splits:
    everything, test = load_cifar10(data_root)
    training, validation = split_validation(everything, recipe.data.validation, recipe.run.seed)
    return Splits(
        dataset=CIFAR10,
        training=ServedArray(training),
        validation=ServedArray(validation) if len(validation) else None,
        test=ServedArray(test),
        trained_images=len(training),
    )
