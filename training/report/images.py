"""The images a run is judged on in the report: of CIFAR-10, of ImageNet's folders, of one's own."""

from pathlib import Path

import numpy as np

from training.data.arrays import LabelledImages
from training.data.cifar10 import load_cifar10
from training.data.folder import CenterCut
from training.data.served import ServedFiles, leave_out_broken, spread
from training.recipe import Recipe
from training.task import list_files, preprocess_of

MOST = 10_000  # images in folders that are held in memory: 1.5 GB at 224 px


def open_test_images(recipe: Recipe, data_root: Path) -> tuple[LabelledImages, int]:
    """The native views of the test images, and how many images the run was trained on; raises DataMissing.

    ImageNet's validation images stand for its test images, as in the paper; of a larger set, MOST evenly.
    """
    if recipe.data.dataset == "cifar10":
        everything, test = load_cifar10(data_root)
        return test, len(everything) - recipe.data.validation
    files = list_files(recipe, data_root)
    held_out = files.validation if files.test is None else files.test
    chosen = leave_out_broken(held_out.pick(spread(len(held_out), MOST)), _nobody)
    cut = CenterCut(preprocess_of(recipe))
    views = np.stack([cut(pixels, 0) for pixels in ServedFiles(chosen)])
    return LabelledImages(views, chosen.targets, chosen.labels), len(files.training)


def _nobody(sentence: str) -> None:
    """Said while training."""
