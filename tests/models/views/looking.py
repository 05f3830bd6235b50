"""Images to look at, contexts to look with, and a real network in the engine's place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.card import PolicyCard, Preprocess
from models.networks.architecture import Network
from models.views.base import Classifier, Look, Scores, ViewContext, ViewOutput, ViewPolicy
from tests.models.making import random_network

DATA = Path(__file__).resolve().parents[2] / "data"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = Preprocess(256, 224, MEAN, STD)
CIFAR = Preprocess(32, 32, MEAN, STD)

Pixels = NDArray[np.uint8]


def photograph(height: int, width: int) -> Pixels:
    """A real photograph, cut or brought to this size: the pixels count, not the shape of the cat."""
    cat = Image.open(DATA / "cat.jpg").convert("RGB")
    if height <= cat.height and width <= cat.width:
        return np.asarray(cat)[:height, :width]
    return np.asarray(cat.resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Subject:
    """A network with random weights, and what a context knows of it."""

    network: Network
    preprocess: Preprocess
    window: int

    def context(self, **changes: Any) -> ViewContext:
        weight = self.network.fc.weight.detach().numpy()
        bias = self.network.fc.bias.detach().numpy()
        values: dict[str, Any] = {
            "preprocess": self.preprocess,
            "window": self.window,
            "classifier": Classifier(weight, bias),
            "fitted": PolicyCard(),
            "merge": "probabilities",
            "pool": "window",
            "max_view_pixels": 4_000_000,
        }
        return ViewContext(**values | changes)


def subject(architecture: str, preprocess: Preprocess, window: int = 8) -> Subject:
    return Subject(random_network(architecture, classes=10), preprocess, window)


def to_input(view: Pixels) -> Tensor:
    """uint8 [H, W, 3] -> normalised float32 [1, 3, H, W]."""
    x = torch.from_numpy(view.copy()).permute(2, 0, 1)[None].float() / 255
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@torch.inference_mode()
def compute(network: Network, look: Look) -> list[ViewOutput]:
    """What an engine answers, one view at a time."""
    outputs = []
    for view in look.views:
        features = network.features(to_input(view))
        logits = network.fc(features.mean(dim=(2, 3)))
        outputs.append(ViewOutput(logits[0].numpy(), features[0].numpy() if look.features else None))
    return outputs


def run_policy(
    policy: ViewPolicy, image: Pixels, context: ViewContext, network: Network
) -> tuple[Scores, list[Look]]:
    """Drive a policy to its scores; also the looks it took."""
    looks = policy.look(image, context)
    taken = [next(looks)]
    outputs: Sequence[ViewOutput] = compute(network, taken[0])
    while True:
        try:
            taken.append(looks.send(outputs))
        except StopIteration as end:
            scores: Scores = end.value
            return scores, taken
        outputs = compute(network, taken[-1])
