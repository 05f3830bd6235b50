"""A model version as the beginning of a run: its body's weights, its way of preparing images."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.integrity import CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, WEIGHTS
from models.networks.architecture import Network
from models.repository import ModelVersion, check_version
from training.data.statistics import Statistics


@dataclass(frozen=True, slots=True)
class Start:
    """`weights`: the version's state dict. `statistics`: its mean and deviation, kept as they are."""

    version: ModelVersion
    weights: dict[str, Tensor]
    statistics: Statistics

    def load_body(self, network: Network) -> None:
        """Give `network`, of the same architecture, every weight but the classifier's."""
        body = {
            key: value
            for key, value in self.weights.items()
            if key not in (CLASSIFIER_WEIGHT, CLASSIFIER_BIAS)
        }
        network.load_state_dict(body, strict=False)


def load_start(path: Path) -> Start:
    """Read a version directory; raises BadVersion."""
    version = check_version(path)
    preprocess = version.card.preprocess
    statistics = Statistics(
        torch.tensor(preprocess.mean).reshape(3, 1, 1),
        torch.tensor(preprocess.std).reshape(3, 1, 1),
        torch.zeros(3, 3),
    )
    return Start(version, load_file(path / WEIGHTS), statistics)
