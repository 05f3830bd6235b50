"""Fresh weights against the rule of He et al. 2015 ("PReLU-net"), equation 10."""

import math

import pytest
import torch
from torch import nn

from models.networks import find_architecture
from training.initialise import initialise


@pytest.mark.parametrize("name", ["resnet20-cifar", "plain20-cifar", "resnet18-a"])
def test_convolutions_have_a_variance_of_two_over_fan_in(name: str) -> None:
    network = find_architecture(name).build(10)
    initialise(network, 0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            count = module.weight.numel()
            tolerance = 5 / math.sqrt(2 * count)  # five standard errors of a deviation
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_in), rel=tolerance)
        elif isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert not module.bias.any()


def test_a_seed_is_a_set_of_weights_of_its_own() -> None:
    first, again, other = (find_architecture("resnet20-cifar").build(10) for _ in range(3))
    for network, seed in ((first, 0), (again, 0), (other, 1)):
        initialise(network, seed)
    assert torch.equal(first.conv1.weight, again.conv1.weight)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(first.conv1.weight, other.conv1.weight)  # type: ignore[union-attr,arg-type]
