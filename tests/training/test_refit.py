"""Fitting a card anew: on which images, what changes and what stays; ensembles too."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.card import Provenance
from models.ensemble import write_ensemble
from models.repository import ModelRepository, ModelVersion, write_version
from models.views import list_policies
from tests.training.making import Quiet, tiny_recipe, write_cifar10
from training.distributed import Ranks
from training.errors import DataMissing
from training.evaluate import evaluate_version
from training.export import export_run
from training.refit import find_recipe, refit_version
from training.splits import open_splits, open_test_split
from training.train import train

ZOO = ModelRepository([Path(__file__).resolve().parents[2] / "models" / "zoo"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar10(tmp_path_factory.mktemp("cifar"))


@pytest.fixture(scope="module")
def repository(data: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    """A trained version, and an ensemble of it and itself."""
    home, recipe = tmp_path_factory.mktemp("run"), tiny_recipe()
    train(recipe, data, home / "run", Ranks(torch.device("cpu")), Quiet())
    splits = open_splits(recipe, data, print)
    one = export_run(home / "run", "tiny", home / "repository", splits, print).version
    write_ensemble(home / "repository", "twice", [one, one], (1.0, 3.0))
    return ModelRepository([home / "repository"])


def refit(version: ModelVersion, repository: ModelRepository, data: Path, to: Path) -> ModelVersion:
    splits = open_splits(tiny_recipe(), data, print)
    return refit_version(version, repository, splits, to, print)[0]


def test_fitting_anew_finds_what_exporting_found(
    repository: ModelRepository, data: Path, tmp_path: Path
) -> None:
    version = repository.find("tiny")
    again = refit(version, repository, data, tmp_path)
    assert (again.card.policies, again.card.metrics) == (version.card.policies, version.card.metrics)
    assert again.card.files == version.card.files


def test_ensemble_is_fitted_and_measured_as_one_network(
    repository: ModelRepository, data: Path, tmp_path: Path
) -> None:
    """Of a network with itself: whatever the weights, its scores are the network's."""
    again = refit(repository.find("twice"), repository, data, tmp_path)
    alone = repository.find("tiny").card
    assert set(again.card.policies) == set(list_policies())
    assert again.card.members == repository.find("twice").card.members
    errors = {(metric.tta, metric.pool): metric.top1_error for metric in again.card.metrics}
    assert errors["center", "window"] == next(one.top1_error for one in alone.metrics if one.tta == "center")


def test_ensemble_is_evaluated(
    repository: ModelRepository, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.cost.ROUNDS", 1)
    monkeypatch.setattr("training.evaluate.SAMPLE", 2)
    split = open_test_split(data)
    pair, one = (
        evaluate_version(repository.find(name), repository, split, policies=["center"])[0]
        for name in ("twice", "tiny")
    )
    assert pair.metric.top1_error == one.metric.top1_error
    assert (pair.predictions == one.predictions).all()
    assert pair.cost is not None


def test_other_images_held_out_are_refused(repository: ModelRepository, data: Path, tmp_path: Path) -> None:
    splits = replace(open_splits(tiny_recipe(), data, print), trained_images=90)
    with pytest.raises(DataMissing, match="not the same split"):
        refit_version(repository.find("tiny"), repository, splits, tmp_path, print)


def test_the_shipped_models_split_is_found_by_its_recipe() -> None:
    recipe = find_recipe(ZOO.find("cifar10"), ZOO)
    assert (recipe.data.dataset, recipe.data.validation, recipe.run.seed) == ("cifar10", 5000, 0)


def test_imported_weights_have_no_unseen_images(repository: ModelRepository, tmp_path: Path) -> None:
    version = repository.find("tiny")
    card = replace(version.card, version=0, provenance=Provenance("imported", "2026-01-01T00:00:00Z"))
    files = {name: (version.path / name).read_bytes() for name in card.files}
    imported = write_version(tmp_path, card, files)
    with pytest.raises(DataMissing, match="was not trained here"):
        find_recipe(imported, ModelRepository([tmp_path]))
