"""`python -m models archs` and `check`; import is tested beside models/checkpoints."""

from pathlib import Path

import pytest

from models.cli import main
from models.networks import list_architectures
from tests.models.making import random_version


def test_archs_lists_every_architecture_with_its_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archs"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {row[0] for row in rows[1:]} == {architecture.name for architecture in list_architectures()}
    assert ["resnet20-cifar", "32x32", "269,722", "40,551,040"] in rows


def test_check_of_a_good_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = random_version(tmp_path)
    for place in (tmp_path, version.path):
        assert main(["check", str(place)]) == 0
        assert "small@1: good: fp32 within" in capsys.readouterr().out


def test_check_names_the_bad_version_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random_version(tmp_path)
    spoilt = random_version(tmp_path)
    (spoilt.path / "graph.onnx").write_bytes(b"")
    broken = tmp_path / "small" / "3"
    broken.mkdir()
    assert main(["check", str(tmp_path)]) == 1
    good, bad, worse = capsys.readouterr().out.splitlines()
    assert good.startswith("small@1: good")
    assert bad.startswith("small@2: BAD: graph.onnx")
    assert worse.startswith("small@3: BAD: ")


@pytest.mark.parametrize("place", ["absent", "."], ids=["no directory", "no versions in it"])
def test_check_of_nothing_is_refused(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / place)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
