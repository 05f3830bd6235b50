"""Count a network's parameters and multiply-adds, as the paper does. Nothing is computed: shapes only."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.networks.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Count:
    """`parameters`: learned numbers. `multiply_adds`: of the convolutions and fc, for one native crop."""

    parameters: int
    multiply_adds: int


def count_architecture(architecture: Architecture, classes: int | None = None) -> Count:
    """Count for `classes` outputs (the architecture's own number if None), on torch's meta device."""
    with torch.device("meta"):
        network = architecture.build(classes or architecture.classes).eval()
        image = torch.empty(1, 3, architecture.crop_px, architecture.crop_px)
    counted: list[int] = []

    def count_layer(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counted.append(_layer_multiply_adds(layer, output))

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count_layer)
    network(image)
    return Count(sum(parameter.numel() for parameter in network.parameters()), sum(counted))


def _layer_multiply_adds(layer: nn.Module, output: Tensor) -> int:
    """Each output number costs one multiply-add for every weight that feeds it."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return output.numel() * weight[0].numel()
