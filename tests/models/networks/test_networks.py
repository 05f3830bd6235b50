"""The networks against torchvision's with the same weights, and what every architecture must do."""

import pytest
import torch
import torchvision
from torch import nn

from models.networks import find_architecture, list_architectures
from models.networks.architecture import Architecture, UnknownArchitecture
from tests.models.making import randomise_norms

# The counts of 1,202 layers are tested in test_counts; their shapes are those of the other depths.
SHALLOW = [found for found in list_architectures() if "1202" not in found.name]
TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@pytest.mark.parametrize("name", TORCHVISION)
@torch.inference_mode()
def test_outputs_are_torchvisions_with_the_same_weights(name: str) -> None:
    torch.manual_seed(0)
    theirs: nn.Module = getattr(torchvision.models, name)(weights=None).eval()
    randomise_norms(theirs)
    ours = find_architecture(name).build(1000).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 128)
    expected = theirs(images)
    assert (ours(images) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("architecture", SHALLOW, ids=lambda found: found.name)
def test_feature_map_has_its_window_at_the_native_size_and_any_size_goes(architecture: Architecture) -> None:
    """On the meta device: shapes without arithmetic."""
    side = architecture.crop_px
    stride = side // architecture.window
    with torch.device("meta"):
        network = architecture.build(7).eval()
        for height, width in ((side, side), (side // 2 + 1, side + 3)):
            x = torch.empty(2, 3, height, width)
            assert network.features(x).shape[2:] == (-(-height // stride), -(-width // stride))
            assert network(x).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet20-cifar", "plain18", "resnet50"])
@torch.inference_mode()
def test_logits_are_those_of_the_mean_feature(name: str) -> None:
    network = find_architecture(name).build(7).eval()
    x = torch.randn(2, 3, 40, 56)
    torch.testing.assert_close(network(x), network.fc(network.features(x).mean(dim=(2, 3))))


def test_1202_layers_are_built() -> None:
    network = find_architecture("resnet1202-cifar").build(10)
    assert sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in network.modules()) == 1202


def test_v1_strides_the_first_1x1_and_v1_5_the_3x3() -> None:
    for name, convolution in (("resnet50-v1", "conv1"), ("resnet50", "conv2")):
        block = find_architecture(name).build(2).get_submodule("layer2.0")
        strides = {key: getattr(block, key).stride[0] for key in ("conv1", "conv2", "conv3")}
        assert strides == {"conv1": 1, "conv2": 1, "conv3": 1, convolution: 2}


def test_plain_networks_ignore_their_input_once_the_stack_is_zero() -> None:
    """A residual block with F(x) = 0 passes x on; a plain one does not."""
    for name, passes in (("resnet20-cifar", True), ("plain20-cifar", False)):
        block = find_architecture(name).build(2).get_submodule("layer1.0").eval()
        nn.init.zeros_(block.get_parameter("conv2.weight"))
        x = torch.rand(1, 16, 4, 4)
        assert torch.allclose(block(x), x if passes else torch.zeros_like(x))


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(UnknownArchitecture, match="resnet50"):
        find_architecture("resnet5O")
