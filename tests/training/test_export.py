"""From a run to a model version: what its card says, and what cannot become one."""

from pathlib import Path

import pytest
import torch

from models.checkpoints.graph import CannotExport
from models.engines.onnx import OnnxEngine
from models.repository import ModelRepository, check_version
from models.selftest import run_selftest
from models.views import list_policies
from tests.training.making import Quiet, tiny_recipe, write_cifar10
from training.data.cifar10 import load_cifar10
from training.distributed import Ranks
from training.evaluate import Measured, evaluate_version, record_metrics
from training.export import Exported, export_run
from training.report.diagnosis import diagnose, measure_version_responses
from training.splits import open_splits, open_test_split
from training.train import train

CPU = Ranks(torch.device("cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar10(tmp_path_factory.mktemp("cifar"))


@pytest.fixture(scope="module")
def exported(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    home = tmp_path_factory.mktemp("run")
    recipe = tiny_recipe()
    train(recipe, data, home / "run", CPU, Quiet())
    return export_run(home / "run", "tiny", home / "repository", open_splits(recipe, data, print), print)


def test_the_version_is_whole_and_every_engine_repeats_its_golden_images(exported: Exported) -> None:
    version = check_version(exported.version.path)
    for precision in ("fp32", "int8"):
        run_selftest(version.card, OnnxEngine(version, precision), precision)


def test_the_card_is_complete(exported: Exported) -> None:
    card = exported.version.card
    assert set(card.policies) == set(list_policies())
    assert {metric.tta for metric in card.metrics} == set(list_policies())
    assert all((metric.images, metric.split) == (24, "test") for metric in card.metrics)
    int8 = [metric for metric in card.metrics if metric.precision == "int8"]
    assert [metric.tta for metric in int8] == ["center", "ten_crop"]
    assert all(metric.changed_predictions is not None for metric in int8)
    assert card.provenance.recipe == tiny_recipe().name
    assert card.provenance.images_seen == "100 training images x 1.9 epochs, 20 others chose"
    assert card.provenance.duration_s is not None
    assert all(0.2 < channel < 0.8 for channel in card.preprocess.mean)


@pytest.fixture(scope="module")
def measured(exported: Exported, data: Path) -> list[Measured]:
    """What evaluating finds; costs of two images in one round, as nobody reads them here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.cost.ROUNDS", 1)
        patch.setattr("training.evaluate.SAMPLE", 2)
        repository = ModelRepository([exported.version.path.parent.parent])
        [alone] = evaluate_version(exported.version, repository, open_test_split(data), policies=["center"])
        every = evaluate_version(exported.version, repository, open_test_split(data))
    assert alone.metric in [row.metric for row in every]
    return every


def test_evaluating_finds_the_errors_of_the_card(exported: Exported, measured: list[Measured]) -> None:
    rows = measured
    assert [row.metric for row in rows] == [row.metric for row in exported.rows]
    assert all(row.cost is not None and row.cost.ms > 0 for row in rows)


def test_measured_errors_go_into_the_next_version_once(
    exported: Exported, measured: list[Measured], tmp_path: Path
) -> None:
    written = record_metrics(exported.version, measured, tmp_path)
    assert sorted(map(repr, written.card.metrics)) == sorted(map(repr, exported.version.card.metrics))
    assert check_version(written.path).card.files == exported.version.card.files


def test_a_version_responds_as_the_run_it_came_from(exported: Exported, data: Path) -> None:
    run = diagnose(exported.version.path.parents[2] / "run", data)
    _, test = load_cifar10(data)
    assert measure_version_responses(exported.version, test) == pytest.approx(run.responses, rel=1e-4)


def test_a_mean_per_pixel_is_refused_with_the_remedy(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("data.mean=pixel")
    train(recipe, data, tmp_path / "run", CPU, Quiet())
    with pytest.raises(CannotExport, match=r"--set data.mean=channel"):
        export_run(tmp_path / "run", "tiny", tmp_path, open_splits(recipe, data, print), print)
