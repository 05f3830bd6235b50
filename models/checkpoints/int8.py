"""Static int8 quantisation of a model version on given views; needs onnx and ONNX Runtime, no torch.

    graph.onnx -> batch norms folded into convolutions -> ranges measured on views -> graph.int8.onnx

Convolutions, additions and max pools become int8 (activations unsigned, weights signed and per channel). The
normalisation, the mean and the classifier stay float32, so that features and logits mean what they mean at
fp32. Weights have seven bits unless told otherwise: on a CPU without VNNI, two products of eight bits can
overflow the sixteen bits they are added in, and the same file must serve every CPU.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from models.engines.onnx import OnnxEngine
from models.integrity import CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, GRAPH, GRAPH_INT8, INPUT, WEIGHTS
from models.repository import ModelVersion, write_version
from models.selftest import measure_difference
from models.tensors import Tensor, read_header

QUANTISED = ["Conv", "Add", "Relu", "MaxPool"]
# The golden images' difference may grow by this much on a CPU whose kernels round the other way.
TOLERANCE_MARGIN = 1.5

Views = NDArray[np.uint8]  # [H, W, 3]


def quantize_version(
    version: ModelVersion, views: Sequence[Views], directory: Path, reduce_range: bool = True
) -> ModelVersion:
    """Write the next version of the model into `directory`: the same weights, and int8 beside fp32.

    `views`: uint8 [H, W, 3], prepared as for serving; a few hundred training images. The card's tolerance for
    int8 is 1.5 times what the golden images show; measuring its error is for whoever has the test set.
    Raises BadVersion, OSError.
    """
    files = {name: (version.path / name).read_bytes() for name in (WEIGHTS, GRAPH)}
    files[GRAPH_INT8] = quantize_graph(version, views, reduce_range)
    card = replace(version.card, version=0, tolerance=_tolerances(version, files))
    return write_version(directory, card, files)


def quantize_graph(version: ModelVersion, views: Sequence[Views], reduce_range: bool = True) -> bytes:
    """The bytes of graph.int8.onnx for `version`, calibrated on `views` (see quantize_version)."""
    if not views:
        raise ValueError("int8 needs views to measure ranges on; a few hundred training images")
    with tempfile.TemporaryDirectory() as scratch:
        folded = _fold_norms(version.path / GRAPH, Path(scratch) / "folded.onnx")
        quantised = Path(scratch) / "int8.onnx"
        quantize_static(
            folded,
            quantised,
            _Calibration(views),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=_classifier_nodes(folded),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(quantised)
    _keep_classifier_outside(model, read_header(version.path / WEIGHTS))
    return model.SerializeToString()


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """Hands the views to the calibrator, one at a time, so that they may differ in size."""

    def __init__(self, views: Iterable[Views]) -> None:
        self._views: Iterator[Views] = iter(views)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        view = next(self._views, None)
        return None if view is None else {INPUT: view[None]}


def _fold_norms(graph: Path, folded: Path) -> onnx.ModelProto:
    """Let ONNX Runtime's exact rewrites fold every batch norm into the convolution before it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    options.log_severity_level = 3
    whole = onnx.load(graph).SerializeToString()  # weights inside, as the quantiser wants them
    ort.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
    model = onnx.load(folded)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # else it warns
    return model


def _classifier_nodes(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if CLASSIFIER_WEIGHT in node.input]


def _keep_classifier_outside(model: onnx.ModelProto, tensors: dict[str, Tensor]) -> None:
    """The classifier's numbers are in weights.safetensors already; let the graph read them there."""
    for constant in model.graph.initializer:
        if constant.name not in (CLASSIFIER_WEIGHT, CLASSIFIER_BIAS):
            continue
        tensor = tensors[constant.name]
        if math.prod(constant.dims) != math.prod(tensor.shape):
            continue
        constant.ClearField("raw_data")
        constant.data_location = onnx.TensorProto.EXTERNAL
        place = {"location": WEIGHTS, "offset": tensor.offset, "length": tensor.size}
        for key, value in place.items():
            constant.external_data.add(key=key, value=str(value))


def _tolerances(version: ModelVersion, files: dict[str, bytes]) -> dict[str, float]:
    """The card's tolerances, and for int8 what the golden images show, with a margin."""
    with tempfile.TemporaryDirectory() as scratch:
        trial = write_version(Path(scratch), replace(version.card, version=1), files)
        engine = OnnxEngine(trial, "int8")
        difference = max(measure_difference(golden, engine) for golden in trial.card.golden)
        engine.close()
    return {**version.card.tolerance, "int8": round(difference * TOLERANCE_MARGIN, 4)}
