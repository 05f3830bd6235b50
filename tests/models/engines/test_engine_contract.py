"""What every engine must do, at every precision it offers on the CPU: a new engine file is tested here."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from models.checkpoints.int8 import quantize_version
from models.engines.base import Engine, EngineError, Placement
from models.engines.opening import list_engines, list_precisions, open_engine
from models.repository import ModelVersion
from models.selftest import decode_golden, run_selftest
from tests.models.making import random_version

PRECISIONS = ("fp32", "int8", "bf16", "fp16")
CASES = [(engine, precision) for engine in list_engines() for precision in PRECISIONS]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    directory = tmp_path_factory.mktemp("repository")
    original = random_version(directory)
    return quantize_version(original, [decode_golden(golden) for golden in original.card.golden], directory)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def opened(request: pytest.FixtureRequest, version: ModelVersion) -> Iterator[tuple[Engine, str]]:
    name, precision = request.param
    try:
        engine = open_engine(version, Placement("cpu", precision, threads=2), name)
    except EngineError:
        assert precision not in list_precisions(version, "cpu", name)
        pytest.skip(f"{name} has no {precision}")
    yield engine, precision
    engine.close()


@pytest.fixture
def engine(opened: tuple[Engine, str]) -> Engine:
    return opened[0]


@pytest.fixture
def allowed(opened: tuple[Engine, str], version: ModelVersion) -> float:
    """Between batches an engine may differ as it may from torch; bitwise equality is ONNX Runtime's own."""
    return version.card.tolerance[opened[1]]


def draw_views(count: int, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_every_engine_has_fp32_on_the_cpu(version: ModelVersion) -> None:
    for name in list_engines():
        assert list_precisions(version, "cpu", name)[0] == "fp32"


def test_golden_images_are_repeated(opened: tuple[Engine, str], version: ModelVersion) -> None:
    assert run_selftest(version.card, *opened).images == len(version.card.golden)


def test_outputs_have_their_shapes_and_type(engine: Engine) -> None:
    output = engine.infer(draw_views(3, 40, 64), features=True)
    assert output.features is not None
    assert output.logits.shape == (3, 10)
    assert output.features.shape == (3, 64, 10, 16)
    assert output.logits.dtype == output.features.dtype == np.dtype(np.float32)
    assert engine.infer(draw_views(1)).features is None


def test_a_view_has_the_same_logits_in_every_batch(engine: Engine, allowed: float) -> None:
    views = draw_views(9)
    whole = engine.infer(views).logits
    for start, stop in ((0, 1), (3, 5), (1, 9)):
        part = engine.infer(np.ascontiguousarray(views[start:stop])).logits
        np.testing.assert_allclose(part, whole[start:stop], atol=allowed)


def test_the_number_of_threads_changes_nothing(engine: Engine, allowed: float) -> None:
    views = draw_views(4)
    one, all_of_them = (engine.infer(views, threads=threads).logits for threads in (1, 2))
    np.testing.assert_allclose(one, all_of_them, atol=allowed)


def test_classifier_of_the_mean_feature_gives_the_logits(engine: Engine) -> None:
    output = engine.infer(draw_views(2), features=True)
    assert output.features is not None
    weight, bias = engine.classifier
    np.testing.assert_allclose(output.features.mean(axis=(2, 3)) @ weight.T + bias, output.logits, atol=1e-4)


def test_several_threads_get_what_each_gets_alone(engine: Engine, allowed: float) -> None:
    batches = [draw_views(5)[start:] for start in range(4)] * 4
    alone = [engine.infer(batch).logits for batch in batches[:4]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: engine.infer(batch).logits, batches))
    for number, logits in enumerate(together):
        np.testing.assert_allclose(logits, alone[number % 4], atol=allowed)


WRONG = {
    "four channels": np.zeros((1, 32, 32, 4), np.uint8),
    "no batch": np.zeros((32, 32, 3), np.uint8),
    "floats": np.zeros((1, 32, 32, 3), np.float32),
}


@pytest.mark.parametrize("views", WRONG.values(), ids=WRONG)
def test_wrong_views_fail_alone(engine: Engine, views: NDArray[np.uint8]) -> None:
    with pytest.raises(EngineError):
        engine.infer(views)
    assert np.isfinite(engine.infer(draw_views(1)).logits).all()


def test_unknown_engine_names_those_there_are(version: ModelVersion) -> None:
    with pytest.raises(ValueError, match="onnx, torch"):
        open_engine(version, Placement(), "tensorflow")


@pytest.mark.parametrize("name", list_engines())
def test_unknown_precision_is_refused(name: str, version: ModelVersion) -> None:
    with pytest.raises(EngineError, match="fp8"):
        open_engine(version, Placement(precision="fp8"), name)
