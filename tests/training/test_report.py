"""The report: what it states is what the runs showed."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from models.networks import find_architecture
from tests.training.making import Quiet, tiny_recipe, write_cifar10
from training.data.cifar10 import load_cifar10
from training.distributed import Ranks
from training.report.diagnosis import Diagnosis, diagnose, norms_after_3x3
from training.report.page import write_page
from training.train import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Diagnosis]:
    home = tmp_path_factory.mktemp("report")
    data = write_cifar10(home / "data")
    for seed in (0, 1):
        train(tiny_recipe(f"run.seed={seed}"), data, home / str(seed), Ranks(torch.device("cpu")), Quiet())
    return [diagnose(home / str(seed), load_cifar10(data)[1]) for seed in (0, 1)]


def test_seeds_of_one_recipe_are_one_row_with_mean_and_spread(runs: list[Diagnosis]) -> None:
    errors = [run.test_error for run in runs]
    row = f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}</td><td>8.75</td><td>0, 1</td>"
    page = write_page(runs)
    assert row in page
    assert page.count("<h3>Confusion") == 2


def test_every_wrong_picture_shown_is_wrong(runs: list[Diagnosis]) -> None:
    captions = re.findall(r"<figcaption>(\w+), called<br>(\w+) (\d+)%", write_page(runs[:1]))
    wrong = round(runs[0].test_error / 100 * len(runs[0].test))
    assert len(captions) == min(24, wrong)
    assert all(true != given for true, given, _ in captions)


def test_the_confusion_matrix_counts_every_image_once(runs: list[Diagnosis]) -> None:
    cells = re.findall(r"<td style=[^>]*>(\d+)</td>", write_page(runs[:1]))
    assert sum(map(int, cells)) == len(runs[0].test)


def test_responses_are_of_every_3x3_layer_before_relu(runs: list[Diagnosis]) -> None:
    network = find_architecture("resnet20-cifar").build(10)
    names = norms_after_3x3(network)
    assert len(names) == len(runs[0].responses) == 19
    assert all(isinstance(network.get_submodule(name), nn.BatchNorm2d) for name in names)
    assert all(response > 0 for response in runs[0].responses)
