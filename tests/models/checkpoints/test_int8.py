"""int8 versions: checked like any other, close to fp32, bitwise equal to themselves whatever the batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from models.checkpoints.int8 import quantize_graph, quantize_version
from models.engines.onnx import OnnxEngine
from models.repository import ModelVersion, check_version
from models.selftest import decode_golden, run_selftest
from tests.models.making import random_version


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    directory = tmp_path_factory.mktemp("repository")
    original = random_version(directory)
    views = [decode_golden(golden) for golden in original.card.golden]
    return quantize_version(original, views, directory)


def test_int8_version_is_the_next_and_passes_its_check(version: ModelVersion) -> None:
    assert version.reference == "small@2"
    assert check_version(version.path) == version
    assert set(version.card.files) == {"weights.safetensors", "graph.onnx", "graph.int8.onnx"}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_selftest_passes_at_both_precisions(version: ModelVersion, precision: str) -> None:
    assert run_selftest(version.card, OnnxEngine(version, precision), precision).difference > 0


def test_int8_is_another_computation_close_to_fp32(version: ModelVersion) -> None:
    views = np.stack([decode_golden(version.card.golden[0])])
    exact = OnnxEngine(version).infer(views, features=True)
    quantised = OnnxEngine(version, "int8").infer(views, features=True)
    assert exact.features is not None
    assert quantised.features is not None
    assert not np.array_equal(exact.features, quantised.features)
    assert np.abs(exact.features - quantised.features).mean() < 0.05 * exact.features.mean()


def test_int8_has_the_same_bits_in_every_batch_and_session(version: ModelVersion) -> None:
    engine = OnnxEngine(version, "int8", threads=2)
    views = np.random.default_rng(0).integers(0, 256, (6, 32, 40, 3), dtype=np.uint8)
    whole = engine.infer(views, threads=1).logits
    for count in (1, 2, 5):
        for threads in (1, 2):
            np.testing.assert_array_equal(engine.infer(views[:count], threads=threads).logits, whole[:count])


def test_convolutions_are_int8_and_the_classifier_stays_outside(version: ModelVersion) -> None:
    model = onnx.load(version.path / "graph.int8.onnx", load_external_data=False)
    outside = {constant.name for constant in model.graph.initializer if constant.external_data}
    assert outside == {"fc.weight", "fc.bias"}
    large = [constant for constant in model.graph.initializer if len(constant.raw_data) > 4096]
    assert large
    assert {constant.data_type for constant in large} == {onnx.TensorProto.INT8}


def test_reduced_range_keeps_weights_within_seven_bits(version: ModelVersion) -> None:
    model = onnx.load(version.path / "graph.int8.onnx", load_external_data=False)
    for constant in model.graph.initializer:
        if constant.data_type == onnx.TensorProto.INT8 and constant.dims:
            assert np.abs(onnx.numpy_helper.to_array(constant).astype(int)).max(initial=0) <= 64


def test_no_views_is_refused(version: ModelVersion, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs views"):
        quantize_graph(version, [])
