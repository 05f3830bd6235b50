"""Small data sets and recipes for tests: pictures of ten tinted noises, in the official CIFAR-10 layout."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.data.arrays import LabelledImages
from training.data.cifar10 import LABELS, TEST, TRAIN
from training.journal import Value
from training.recipe import Recipe, load_recipe

PER_BATCH = 24


def make_images(count: int, seed: int = 0) -> LabelledImages:
    """`count` images of 32 px, each class of its own colour, labels in turn."""
    random = np.random.default_rng(seed)
    targets = np.arange(count, dtype=np.int64) % len(LABELS)
    tints = np.random.default_rng(7).integers(40, 216, (len(LABELS), 1, 1, 3))
    noise = random.integers(-40, 40, (count, 32, 32, 3))
    return LabelledImages((tints[targets] + noise).astype(np.uint8), targets, LABELS)


def write_cifar10(root: Path, per_batch: int = PER_BATCH) -> Path:
    """The binary layout with `per_batch` images in each of its six files; returns `root`."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number, name in enumerate((*TRAIN, *TEST)):
        data = make_images(per_batch, seed=number)
        planes = data.images.transpose(0, 3, 1, 2).reshape(per_batch, -1)
        records = np.concatenate([data.targets[:, None].astype(np.uint8), planes], axis=1)
        records.tofile(folder / f"{name}.bin")
    return root


def tiny_recipe(*overrides: str) -> Recipe:
    """A run of 12 steps of 16 images of 100, with an average, on one thread's worth of network."""
    return load_recipe(
        "cifar10/short-resnet20",
        [
            "data.validation=20",
            "optimizer.batch=16",
            "schedule.epochs=1.9",
            "schedule.warmup_iterations=4",
            "run.ema=0.9",
            "run.checkpoint_every_steps=2",
            "run.evaluate_every_epochs=0.5",
            *overrides,
        ],
    )


def write_photos(root: Path, classes: int = 3, per_class: int = 8, side: int = 80) -> Path:
    """A folder a class, each with JPEG and PNG files of its own colour, of several shapes; returns `root`."""
    random = np.random.default_rng(1)
    tints = np.random.default_rng(7).integers(40, 216, (classes, 3))
    for index in range(classes):
        folder = root / f"class {index}"
        folder.mkdir(parents=True)
        for number in range(per_class):
            noise = random.integers(-40, 40, (side, side + 8 * (number % 3), 3))
            suffix = "png" if number % 2 else "jpg"
            Image.fromarray((tints[index] + noise).astype(np.uint8)).save(folder / f"{number}.{suffix}")
    return root


def write_imagenet(root: Path) -> Path:
    """ImageNet's folders with a few pictures in them; returns `root`."""
    write_photos(root / "train")
    write_photos(root / "val", per_class=2)
    return root


class Quiet:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps = 0
        self.evaluations: list[dict[str, Value]] = []

    def saw_steps(self, step: int, steps: int, loss: float, error: float, images_per_s: float) -> None:
        self.steps = step

    def saw_evaluation(self, step: int, values: dict[str, Value]) -> None:
        self.evaluations.append(values)

    def say(self, sentence: str) -> None:
        self.said.append(sentence)
