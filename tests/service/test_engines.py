"""The service over every engine, and over ensembles: the same answers, through every view policy."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.ensemble import write_ensemble
from models.views import list_policies
from tests.models.making import random_version
from tests.serving import PHOTOGRAPHS, START_S, Service, run_service

WEIGHTS = (3.0, 1.0)
CAT = (PHOTOGRAPHS / "cat.jpg").read_bytes()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("repository")
    members = [
        random_version(directory, "shallow", "resnet20-cifar"),
        random_version(directory, "deep", "resnet32-cifar"),
    ]
    write_ensemble(directory, "pair", members, WEIGHTS)
    return directory


@contextmanager
def run_engine(repository: Path, engine: str) -> Iterator[Service]:
    """A service whose three models are all up; ready needs only one of them."""
    with run_service(repository, engine=engine, default_model="pair") as service:
        deadline = time.monotonic() + START_S
        while len(service.get_json("/v1/models")["models"]) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        yield service


@pytest.fixture(scope="module")
def onnx(repository: Path) -> Iterator[Service]:
    with run_engine(repository, "onnx") as service:
        yield service


@pytest.fixture(scope="module")
def torch(repository: Path) -> Iterator[Service]:
    with run_engine(repository, "torch") as service:
        yield service


def ask_logits(service: Service, model: str, tta: str) -> NDArray[np.float64]:
    answer = service.post_image(CAT, f"?model={model}&tta={tta}&logits=true")
    assert answer["tta"]["used"] == tta
    return np.asarray(answer["logits"])


@pytest.mark.parametrize("tta", list_policies())
def test_torch_gives_the_logits_of_onnx(onnx: Service, torch: Service, tta: str) -> None:
    for model in ("shallow", "pair"):
        np.testing.assert_allclose(
            ask_logits(torch, model, tta), ask_logits(onnx, model, tta), atol=1e-4, err_msg=model
        )


@pytest.mark.parametrize("tta", ["center", "ten_crop", "dense", "multi_scale"])
def test_ensemble_gives_the_weighted_mean_of_its_members(onnx: Service, tta: str) -> None:
    shallow, deep, pair = (ask_logits(onnx, model, tta) for model in ("shallow", "deep", "pair"))
    np.testing.assert_allclose(pair, 0.75 * shallow + 0.25 * deep, atol=1e-5)


def test_each_service_runs_the_engine_asked_for(onnx: Service, torch: Service) -> None:
    """Only a worker of the torch engine has torch's library mapped."""
    for service, has_torch in ((onnx, False), (torch, True)):
        maps = [Path(f"/proc/{pid}/maps").read_text() for pid in service.list_pids()]
        assert any("libtorch" in one for one in maps) is has_torch
