"""The torch engine's own parts: folding, loading, and the exercise script on the device every machine has."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from models.engines.base import EngineError, Placement
from models.engines.torch import load_network, open_engine
from models.engines.torch.exercise import main
from models.networks.folding import fold_norms
from tests.models.making import random_network, random_version


@pytest.mark.parametrize("name", ["resnet20-cifar", "plain20-cifar", "resnet18", "resnet34-a", "resnet50"])
@torch.inference_mode()
def test_folding_leaves_no_norm_and_changes_nothing(name: str) -> None:
    network = random_network(name)
    folded = fold_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    x = torch.randn(1, 3, 64, 80)
    expected = network(x)
    assert (folded(x) - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


def test_network_of_another_architecture_is_refused(tmp_path: Path) -> None:
    version = random_version(tmp_path)
    wrong = replace(version, card=replace(version.card, architecture="resnet32-cifar"))
    with pytest.raises(EngineError, match=r"layer1\.3"):
        load_network(wrong)
    unknown = replace(version, card=replace(version.card, architecture="vgg16"))
    with pytest.raises(EngineError, match="vgg16"):
        load_network(unknown)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        open_engine(random_version(tmp_path), Placement("cuda:0", "fp32"))


def test_exercise_passes_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = random_version(tmp_path)
    assert main([str(version.path), "--device", "cpu", "--seconds", "0.1"]) == 0
    assert capsys.readouterr().out.count("8 threads agree") == 1
