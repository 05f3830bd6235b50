"""An ensemble is the weighted mean of its members, through every output an engine has."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from models.cli import main
from models.engines.base import Placement
from models.engines.onnx import OnnxEngine
from models.ensemble import list_precisions, open_version, write_ensemble
from models.integrity import BadVersion
from models.repository import ModelRepository, ModelVersion, check_version, write_version
from models.selftest import run_selftest
from service.commands.inspect import COMMAND as INSPECT
from tests.models.making import random_version

WEIGHTS = (3.0, 1.0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Members of different depth, and an ensemble of them."""
    directory = tmp_path_factory.mktemp("repository")
    members = [
        random_version(directory, "shallow", "resnet20-cifar"),
        random_version(directory, "deep", "resnet32-cifar"),
    ]
    write_ensemble(directory, "pair", members, WEIGHTS)
    return directory


@pytest.fixture
def repository(directory: Path) -> ModelRepository:
    return ModelRepository([directory])


def test_scores_are_the_weighted_mean_of_the_members(repository: ModelRepository) -> None:
    views = np.random.default_rng(0).integers(0, 256, (3, 40, 32, 3), dtype=np.uint8)
    engine = open_version(repository.find("pair"), repository, Placement(threads=2))
    alone = [OnnxEngine(repository.find(name)).infer(views).logits for name in ("shallow", "deep")]
    for threads in (1, 2):
        logits = engine.infer(views, threads=threads).logits
        np.testing.assert_allclose(logits, 0.75 * alone[0] + 0.25 * alone[1], atol=1e-6)


def test_classifier_and_features_are_those_of_the_mean(repository: ModelRepository) -> None:
    views = np.random.default_rng(0).integers(0, 256, (2, 48, 32, 3), dtype=np.uint8)
    engine = open_version(repository.find("pair"), repository, Placement())
    output = engine.infer(views, features=True)
    assert output.features is not None
    assert output.features.shape == (2, 128, 12, 8)
    weight, bias = engine.classifier
    np.testing.assert_allclose(output.features.mean(axis=(2, 3)) @ weight.T + bias, output.logits, atol=1e-5)


def test_ensemble_passes_check_and_selftest_like_any_version(
    repository: ModelRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble = check_version(repository.find("pair").path)
    assert list_precisions(ensemble, repository, "cpu") == ("fp32",)
    assert run_selftest(ensemble.card, open_version(ensemble, repository, Placement())).difference < 1e-5
    assert main(["check", str(repository.directories[0])]) == 0
    assert "pair@1: good: fp32" in capsys.readouterr().out


def test_inspect_tells_the_members_and_runs_the_selftest(repository: ModelRepository) -> None:
    home = str(repository.directories[0])
    for asked in (["pair", "--repository", home], [f"{home}/pair/1"]):
        told = CliRunner().invoke(INSPECT, asked)
        assert told.exit_code == 0, told.output
        assert "member deep@1" in told.output
        assert "self-test fp32: 3 golden images" in told.output


def test_command_line_writes_an_ensemble(
    repository: ModelRepository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ensemble", "shallow=3", "deep@1", "--name", "both", "--to", str(tmp_path)]
    assert main([*arguments, "--from", str(repository.directories[0])]) == 0
    assert capsys.readouterr().out.startswith("both@1")
    written = ModelRepository([tmp_path]).find("both")
    assert written.card.members == repository.find("pair").card.members
    assert written.card.golden == repository.find("pair").card.golden


BAD = {
    "unknown member": (["shallow", "deeper"], "deeper"),
    "one member": (["shallow"], "two members"),
    "weight zero": (["shallow=0", "deep"], "above 0"),
    "weight no number": (["shallow=x", "deep"], "shallow=x"),
}


@pytest.mark.parametrize(("members", "message"), BAD.values(), ids=BAD)
def test_bad_ensemble_is_one_clear_line(
    members: list[str],
    message: str,
    repository: ModelRepository,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = str(repository.directories[0])
    assert main(["ensemble", *members, "--name", "both", "--to", str(tmp_path), "--from", home]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("field", ["labels", "preprocess", "window"])
def test_members_must_agree(field: str, repository: ModelRepository, tmp_path: Path) -> None:
    shallow, deep = repository.find("shallow"), repository.find("deep")
    other = {
        "labels": deep.card.labels[::-1],
        "preprocess": replace(deep.card.preprocess, crop_px=28),
        "window": 7,
    }
    files = {name: (deep.path / name).read_bytes() for name in deep.card.files}
    card = replace(deep.card, **{field: other[field]})  # type: ignore[arg-type]  # by name
    changed: ModelVersion = write_version(tmp_path, card, files)
    with pytest.raises(BadVersion, match=f"other {field}"):
        write_ensemble(tmp_path, "both", [shallow, changed], (1.0, 1.0))
    assert not (tmp_path / "both").exists()
