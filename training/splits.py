"""Which data a recipe means, as the parts of a run that need them see it."""

from pathlib import Path

from training.data.arrays import split_validation
from training.data.cifar10 import load_cifar10
from training.data.served import ServedArray
from training.evaluate import Split
from training.export import Splits
from training.recipe import Recipe

CIFAR10 = "CIFAR-10"


def open_splits(recipe: Recipe, data_root: Path) -> Splits:
    """Training, validation and test images of `recipe` for export; raises DataMissing."""
    everything, test = load_cifar10(data_root)
    training, validation = split_validation(everything, recipe.data.validation, recipe.run.seed)
    return Splits(
        dataset=CIFAR10,
        training=ServedArray(training),
        validation=ServedArray(validation) if len(validation) else None,
        test=ServedArray(test),
        trained_images=len(training),
    )


def open_test_split(data_root: Path) -> Split:
    """The 10,000 test images of CIFAR-10; raises DataMissing."""
    return Split(CIFAR10, "test", ServedArray(load_cifar10(data_root)[1]))
