"""The version is that of pyproject.toml, wherever it is told."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from service import version
from service.protocols.open_inference_models import describe_server
from tests.serving import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_a_clone_knows_its_version() -> None:
    assert version.find_version() == VERSION
    assert describe_server()["version"] == VERSION


def test_the_command_line_tells_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"resnet-serve, version {VERSION}\n"


@pytest.mark.parametrize("text", ["", "[project", '[project]\nname = "another"\nversion = "9"\n'])
def test_another_projects_file_is_not_ours(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(text)
    assert version._read_clone(path) is None


def test_without_either_it_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", find_none)
    assert version._read_installed() == "unknown"
