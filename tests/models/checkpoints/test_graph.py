"""The exporter: every architecture's graph reads its weights; one of each kind is computed."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checkpoints.graph import OPSET, CannotExport, write_graph
from models.engines.onnx import OnnxEngine
from models.graph import parse_graph
from models.networks import find_architecture, list_architectures
from models.networks.architecture import Architecture, Network
from models.networks.normalisation import Normalise
from models.networks.resnet_cifar import CIFAR10
from models.tensors import Tensor as Stored
from tests.models.making import random_network, random_version

# One of each way to build a block: options A, B and C, plain, bottleneck.
KINDS = ["resnet18-a", "resnet18", "resnet18-c", "plain18", "resnet50", "plain20-cifar"]


def pretend_to_store(network: Network) -> dict[str, Stored]:
    """Where weights.safetensors would have each tensor, without writing 240 MB of it."""
    places, offset = {}, 1000
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            size = value.numel() * 4
            places[name] = Stored(name, np.dtype("<f4"), tuple(value.shape), offset, size)
            offset += size
    return places


@pytest.mark.parametrize("architecture", list_architectures(), ids=lambda found: found.name)
def test_every_architectures_graph_reads_every_weight_and_holds_little(architecture: Architecture) -> None:
    with torch.device("meta"):
        network = architecture.build(architecture.classes)
    tensors = pretend_to_store(network)
    data = write_graph(network, architecture.preprocess, tensors)
    graph = parse_graph(data)
    external = {constant.name: constant for constant in graph.initialisers if constant.external}
    assert external.keys() == tensors.keys()
    for name, constant in external.items():
        stored = tensors[name]
        expected = {
            "location": "weights.safetensors",
            "offset": str(stored.offset),
            "length": str(stored.size),
        }
        assert constant.external == expected
        assert math.prod(constant.shape) == math.prod(stored.shape)
    assert (graph.inputs, graph.outputs) == (("views",), ("logits", "features"))
    assert len(data) < 1_500_000


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_graph_computes_what_torch_does(name: str, tmp_path: Path) -> None:
    version = random_version(tmp_path, "kind", name)
    views = np.random.default_rng(0).integers(0, 256, (2, 70, 97, 3), dtype=np.uint8)
    x = Normalise(version.card.preprocess)(torch.from_numpy(views))
    network = random_network(name)
    output = OnnxEngine(version).infer(views, features=True)
    for got, expected in ((output.features, network.features(x)), (output.logits, network(x))):
        assert got is not None
        scale = max(1.0, float(expected.abs().max()))
        np.testing.assert_allclose(got, expected.numpy(), atol=2e-5 * scale)


def test_graph_is_valid_onnx_of_the_stated_opset(tmp_path: Path) -> None:
    version = random_version(tmp_path)
    model = onnx.load(version.path / "graph.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]


def test_option_a_is_one_convolution_that_picks_every_channel_once(tmp_path: Path) -> None:
    version = random_version(tmp_path)
    model = onnx.load(version.path / "graph.onnx", load_external_data=False)
    assert not {"Pad", "Slice"} & {node.op_type for node in model.graph.node}
    picks = [constant for constant in model.graph.initializer if constant.name.endswith(".pick")]
    assert [tuple(pick.dims) for pick in picks] == [(32, 16, 1, 1), (64, 32, 1, 1)]
    for pick in picks:
        values = onnx.numpy_helper.to_array(pick)[:, :, 0, 0]
        channels, inputs = values.shape
        assert np.array_equal(
            np.flatnonzero(values.sum(axis=1)), np.arange(inputs) + (channels - inputs) // 2
        )
        assert np.array_equal(values.sum(axis=0), np.ones(inputs))


class Odd(Network):
    """A network whose features are `layer`, or a function, of its input."""

    def __init__(self, layer: nn.Module | None) -> None:
        super().__init__()
        self.layer = layer
        self.fc = nn.Linear(3, 2)

    def features(self, x: Tensor) -> Tensor:
        return F.gelu(x) if self.layer is None else self.layer(x)


ODD = {
    "a layer": (nn.PReLU(), "layer, a PReLU"),
    "a function": (None, "gelu"),
    "reflected padding": (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), "reflect"),
    "pool with ceil_mode": (nn.MaxPool2d(3, ceil_mode=True), "ceil_mode"),
}


@pytest.mark.parametrize(("layer", "message"), ODD.values(), ids=ODD)
def test_what_the_exporter_does_not_know_is_named(layer: nn.Module | None, message: str) -> None:
    network = Odd(layer)
    with pytest.raises(CannotExport, match=message):
        write_graph(network, CIFAR10, pretend_to_store(network))


def test_deepest_network_is_exported_whole() -> None:
    with torch.device("meta"):
        network = find_architecture("resnet1202-cifar").build(10)
    model = onnx.load_from_string(write_graph(network, CIFAR10, pretend_to_store(network)))
    kinds = [node.op_type for node in model.graph.node]
    # 1,201 convolutions of the network, two option-A shortcuts, and the classifier as a convolution.
    assert kinds.count("Conv") == 1201 + 2 + 1
