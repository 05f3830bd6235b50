"""The ONNX Runtime engine: equal to torch, and bitwise equal to itself whatever the batch and the threads."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from models.engines.base import EngineError
from models.engines.onnx import OnnxEngine
from models.networks.normalisation import Normalise
from models.repository import ModelVersion
from tests.models.making import random_network, random_version

SIZES = [(32, 32), (37, 61), (96, 64)]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return random_version(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def engine(version: ModelVersion) -> Iterator[OnnxEngine]:
    engine = OnnxEngine(version, threads=2)
    yield engine
    engine.close()


def draw_views(count: int, height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.inference_mode()
def test_outputs_are_torchs_at_any_size(
    engine: OnnxEngine, version: ModelVersion, size: tuple[int, int]
) -> None:
    views = draw_views(4, *size)
    network = random_network()
    x = Normalise(version.card.preprocess)(torch.from_numpy(views))
    output = engine.infer(views, features=True)
    assert output.features is not None
    np.testing.assert_allclose(output.features, network.features(x).numpy(), atol=2e-5)
    np.testing.assert_allclose(output.logits, network(x).numpy(), atol=2e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_an_image_has_the_same_bits_in_every_batch_and_session(
    engine: OnnxEngine, size: tuple[int, int]
) -> None:
    views = draw_views(8, *size)
    whole = engine.infer(views, features=True, threads=1)
    assert whole.features is not None
    for count in range(1, 9):
        for threads in (1, 2):
            part = engine.infer(np.ascontiguousarray(views[8 - count :]), features=True, threads=threads)
            assert part.features is not None
            np.testing.assert_array_equal(part.logits, whole.logits[8 - count :])
            np.testing.assert_array_equal(part.features, whole.features[8 - count :])


def test_classifier_of_the_mean_feature_gives_the_logits(engine: OnnxEngine) -> None:
    output = engine.infer(draw_views(3, 32, 32), features=True)
    assert output.features is not None
    weight, bias = engine.classifier
    np.testing.assert_allclose(output.features.mean(axis=(2, 3)) @ weight.T + bias, output.logits, atol=1e-5)


def test_features_are_left_out_unless_asked_for(engine: OnnxEngine) -> None:
    assert engine.infer(draw_views(1, 32, 32)).features is None


def test_wrong_views_are_an_engine_error_and_the_engine_goes_on(engine: OnnxEngine) -> None:
    with pytest.raises(EngineError):
        engine.infer(np.zeros((1, 32, 32, 4), np.uint8))
    assert engine.infer(draw_views(1, 32, 32)).logits.shape == (1, 10)


def test_missing_precision_is_refused(version: ModelVersion) -> None:
    with pytest.raises(EngineError, match="no int8 graph"):
        OnnxEngine(version, precision="int8")


def test_missing_file_is_an_engine_error(version: ModelVersion, tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        OnnxEngine(ModelVersion(version.card, tmp_path, version.digest))
