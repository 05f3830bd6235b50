"""Model versions with random weights, to measure with: `python -m bench.random_models FOLDER`. Needs torch.

They cost what trained ones do: `resnet18` sees 224 px and has 1,000 classes, `resnet20` 32 px and 10. Each
has int8 beside fp32, its ranges measured on the benchmark's own images.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.images import make_images_for
from models.card import ModelCard
from models.checkpoints.export import export_version
from models.checkpoints.int8 import quantize_version
from models.decode import DecodeLimits, decode_image
from models.preprocess import cut_views, plan_center
from models.repository import ModelVersion
from tests.models.making import random_card, random_network

MODELS = {"resnet18": ("resnet18", 1000), "resnet20": ("resnet20-cifar", 10)}


def write_random(name: str, folder: Path) -> ModelVersion:
    """One of MODELS into the repository `folder`."""
    architecture, classes = MODELS[name]
    card = random_card(name, architecture, classes)
    with tempfile.TemporaryDirectory() as scratch:
        plain = export_version(random_network(architecture, classes), card, Path(scratch))
        images = make_images_for(card.preprocess.crop_px, 16)
        views = [view for image in images for view in _cut(card, image)]
        return quantize_version(plain, views, folder)


def _cut(card: ModelCard, image: bytes) -> list[NDArray[np.uint8]]:
    pixels, rule = decode_image(image, DecodeLimits()).pixels, card.preprocess
    height, width, _ = pixels.shape
    return list(cut_views(pixels, plan_center(height, width, rule), rule.interpolation))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    for name in MODELS:
        print(write_random(name, given.folder).reference)


if __name__ == "__main__":
    main()
