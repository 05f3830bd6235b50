"""Make real model versions for tests: networks with random weights and lively batch-norm statistics."""

from functools import cache
from pathlib import Path

import torch
from torch import nn

from models.card import ModelCard, Preprocess, Provenance
from models.checkpoints.export import export_version
from models.networks import find_architecture
from models.networks.architecture import Network
from models.repository import ModelVersion

SMALL = "resnet20-cifar"


@cache
def random_network(architecture: str = SMALL, classes: int = 10, seed: int = 0) -> Network:
    """A network with fresh weights and lively batch norms."""
    torch.manual_seed(seed)
    network = find_architecture(architecture).build(classes)
    randomise_norms(network)
    return network.eval()


def randomise_norms(network: nn.Module) -> None:
    """Make every batch norm do something: means, variances, scales and shifts all drawn."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]  # a buffer is a tensor
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]  # as above
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)


def random_card(name: str = "small", architecture: str = SMALL, classes: int = 10) -> ModelCard:
    """The card of such a network; version 0 means the next free number."""
    found = find_architecture(architecture)
    preprocess = Preprocess(
        found.crop_px * 8 // 7, found.crop_px, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26)
    )
    return ModelCard(
        name=name,
        version=0,
        architecture=architecture,
        labels=tuple(f"class {index}" for index in range(classes)),
        preprocess=preprocess,
        window=found.window,
        provenance=Provenance("trained", "2026-01-01T00:00:00Z"),
    )


def random_version(
    directory: Path, name: str = "small", architecture: str = SMALL, seed: int = 0
) -> ModelVersion:
    """Export such a network into the repository `directory`."""
    network = random_network(architecture, seed=seed)
    return export_version(network, random_card(name, architecture), directory)
