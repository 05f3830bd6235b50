"""Write a network as an ONNX graph whose constants stay in weights.safetensors.

    views uint8 [N, H, W, 3] -> cast, normalise -> Network.features -> features float32 [N, C, h, w]
                                                      -> mean over h, w -> classifier -> logits float32 [N, K]

The network is traced with torch.fx and its few kinds of layer are written one by one, rather than with
torch.onnx.export, because three things must be exact: every constant is the state dict's tensor of the same
name, at its place in the weights file; option A is one 1x1 convolution (4-8 % faster than slice and pad); and
the classifier is a 1x1 convolution too, because a Gemm takes another path for one row than for many, and then
an image's logits would depend on its neighbours in the batch.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import fx, nn

from models.card import Preprocess
from models.integrity import CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, INPUT, OUTPUTS, WEIGHTS
from models.networks.architecture import Network
from models.networks.shortcuts import PadShortcut
from models.tensors import Tensor

OPSET = 17
IR_VERSION = 8  # of onnx 1.12, the release of opset 17: every runtime since mid 2022 reads it


class CannotExport(ValueError):
    """The network has a layer or an operation the exporter does not know; the message names it."""


@dataclass(slots=True)
class _Writer:
    """The graph while it grows."""

    tensors: Mapping[str, Tensor]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)

    def add(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def stored(self, name: str, shape: tuple[int, ...] | None = None) -> str:
        """A constant that is the tensor `name` of the weights file, possibly seen in another shape."""
        tensor = self.tensors[name]
        constant = TensorProto(
            name=name,
            data_type=TensorProto.FLOAT,
            dims=shape or tensor.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", WEIGHTS), ("offset", tensor.offset), ("length", tensor.size)):
            constant.external_data.add(key=key, value=str(value))
        self.constants[name] = constant
        return name

    def inline(self, name: str, values: NDArray[np.float32]) -> str:
        self.constants[name] = numpy_helper.from_array(values, name)
        return name


def write_graph(network: Network, preprocess: Preprocess, tensors: Mapping[str, Tensor]) -> bytes:
    """The graph of `network` as bytes; `tensors` says where its state dict lies in weights.safetensors.

    Raises CannotExport for a layer it does not know.
    """
    writer = _Writer(tensors)
    body = _write_body(writer, network, _write_normalisation(writer, preprocess))
    _write_classifier(writer, body)
    return _model(writer, network).SerializeToString()


def _write_normalisation(writer: _Writer, preprocess: Preprocess) -> str:
    """(views / 255 - mean) / std as one subtraction and one product, after the cheap uint8 transpose."""
    mean = np.asarray(preprocess.mean, np.float64).reshape(1, 3, 1, 1) * 255
    scale = 1 / (np.asarray(preprocess.std, np.float64).reshape(1, 3, 1, 1) * 255)
    writer.add("Transpose", [INPUT], "views.planes", perm=(0, 3, 1, 2))  # [N, 3, H, W]
    writer.add("Cast", ["views.planes"], "views.float", to=TensorProto.FLOAT)
    centred = writer.inline("views.mean", mean.astype(np.float32))
    writer.add("Sub", ["views.float", centred], "views.centred")
    return writer.add("Mul", ["views.centred", writer.inline("views.scale", scale.astype(np.float32))], "x")


def _write_classifier(writer: _Writer, features: str) -> None:
    classes, channels = writer.tensors[CLASSIFIER_WEIGHT].shape
    writer.add("GlobalAveragePool", [features], "pooled")  # [N, C, 1, 1]
    weight = writer.stored(CLASSIFIER_WEIGHT, (classes, channels, 1, 1))
    writer.add("Conv", ["pooled", weight, writer.stored(CLASSIFIER_BIAS)], "scores", kernel_shape=(1, 1))
    writer.add("Flatten", ["scores"], OUTPUTS[0], axis=1)  # [N, K]


def _model(writer: _Writer, network: Network) -> ModelProto:
    classes, channels = writer.tensors[CLASSIFIER_WEIGHT].shape
    graph = helper.make_graph(
        writer.nodes,
        type(network).__name__,
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor_value_info(OUTPUTS[0], TensorProto.FLOAT, ["N", classes]),
            helper.make_tensor_value_info(OUTPUTS[1], TensorProto.FLOAT, ["N", channels, "h", "w"]),
        ],
        initializer=list(writer.constants.values()),
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="resnet-serve"
    )


class _Tracer(fx.Tracer):
    """Traces Network.features down to the layers the exporter knows."""

    traced_func_name = "features"

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in _LAYERS or super().is_leaf_module(m, module_qualified_name)


def _write_body(writer: _Writer, network: Network, x: str) -> str:
    names: dict[fx.Node, str] = {}
    for node in _Tracer().trace(network).nodes:
        if node.op == "placeholder":
            names[node] = x
        elif node.op == "output":
            return writer.add("Identity", [names[node.args[0]]], OUTPUTS[1])
        else:
            names[node] = _write_node(
                writer, network, node, [names[source] for source in node.all_input_nodes]
            )
    raise CannotExport(f"{type(network).__name__}.features returns nothing")


def _write_node(writer: _Writer, network: Network, node: fx.Node, inputs: list[str]) -> str:
    if node.op == "call_module":
        layer = network.get_submodule(str(node.target))
        if type(layer) in _LAYERS:
            return _LAYERS[type(layer)](writer, layer, str(node.target), node.name, inputs)
        raise CannotExport(f"cannot export {node.target}, a {type(layer).__name__}")
    if node.op == "call_function" and node.target in _FUNCTIONS:
        operation, arity = _FUNCTIONS[node.target]
        if len(inputs) == arity:
            return writer.add(operation, inputs, node.name)
    raise CannotExport(f"cannot export the operation {node.name} ({node.target})")


_LayerWriter = Callable[[_Writer, Any, str, str, list[str]], str]


def _write_conv(writer: _Writer, layer: nn.Conv2d, key: str, name: str, inputs: list[str]) -> str:
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise CannotExport(f"cannot export {key}: padding {layer.padding!r}, {layer.padding_mode}")
    constants = [writer.stored(f"{key}.weight")]
    if layer.bias is not None:
        constants.append(writer.stored(f"{key}.bias"))
    return writer.add(
        "Conv",
        inputs + constants,
        name,
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=layer.padding * 2,
        dilations=layer.dilation,
        group=layer.groups,
    )


def _write_norm(writer: _Writer, layer: nn.BatchNorm2d, key: str, name: str, inputs: list[str]) -> str:
    keys = (f"{key}.weight", f"{key}.bias", f"{key}.running_mean", f"{key}.running_var")
    constants = [writer.stored(constant) for constant in keys]
    return writer.add("BatchNormalization", inputs + constants, name, epsilon=layer.eps)


def _write_pool(writer: _Writer, layer: nn.MaxPool2d, key: str, name: str, inputs: list[str]) -> str:
    if layer.ceil_mode or layer.dilation != 1:
        raise CannotExport(f"cannot export {key}: a max pool with ceil_mode or dilation")
    kernel, stride, padding = (_pair(value) for value in (layer.kernel_size, layer.stride, layer.padding))
    return writer.add("MaxPool", inputs, name, kernel_shape=kernel, strides=stride, pads=padding * 2)


def _write_pad(writer: _Writer, layer: PadShortcut, key: str, name: str, inputs: list[str]) -> str:
    """Option A as a 1x1 convolution whose kernel picks each input channel once: exact, and fast."""
    pick = np.zeros((layer.channels, layer.in_channels, 1, 1), np.float32)
    for channel in range(layer.in_channels):
        pick[layer.padding[0] + channel, channel] = 1
    constant = writer.inline(f"{key}.pick", pick)
    strides = (layer.stride, layer.stride)
    return writer.add("Conv", [*inputs, constant], name, kernel_shape=(1, 1), strides=strides)


def _write_relu(writer: _Writer, layer: nn.ReLU, key: str, name: str, inputs: list[str]) -> str:
    return writer.add("Relu", inputs, name)


def _write_identity(writer: _Writer, layer: nn.Identity, key: str, name: str, inputs: list[str]) -> str:
    return inputs[0]


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else value


_LAYERS: dict[type[nn.Module], _LayerWriter] = {
    nn.Conv2d: _write_conv,
    nn.BatchNorm2d: _write_norm,
    nn.MaxPool2d: _write_pool,
    nn.ReLU: _write_relu,
    nn.Identity: _write_identity,
    PadShortcut: _write_pad,
}

# The function called in `features`, its ONNX operator, and how many traced inputs it must have.
_FUNCTIONS: dict[Any, tuple[str, int]] = {
    F.relu: ("Relu", 1),
    torch.relu: ("Relu", 1),
    operator.add: ("Add", 2),
    operator.iadd: ("Add", 2),
    torch.add: ("Add", 2),
}
