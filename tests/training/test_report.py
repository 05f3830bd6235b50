"""The report: what it states is what the runs showed."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

from models.networks import find_architecture
from tests.training.making import Quiet, tiny_recipe, write_cifar10, write_photos
from training.distributed import Ranks
from training.recipe import load_recipe
from training.report.charts import choose_ticks
from training.report.diagnosis import Diagnosis, diagnose, norms_after_3x3
from training.report.figures import compare_responses, draw_curves, watched_error
from training.report.page import write_page
from training.report.results import write_results
from training.train import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Diagnosis]:
    home = tmp_path_factory.mktemp("report")
    data = write_cifar10(home / "data")
    for seed in (0, 1):
        recipe = tiny_recipe(f"run.seed={seed}", "run.watch_test=true")
        train(recipe, data, home / str(seed), Ranks(torch.device("cpu")), Quiet())
    return [diagnose(home / str(seed), data) for seed in (0, 1)]


def test_seeds_of_one_recipe_are_one_row_with_mean_and_spread(runs: list[Diagnosis]) -> None:
    errors = [run.test_error for run in runs]
    row = f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}</td><td>8.75</td><td>0, 1</td>"
    page = write_page(runs)
    assert row in page
    assert page.count("<h3>Confusion") == 2


def test_the_watched_test_error_is_that_of_the_network_kept(runs: list[Diagnosis]) -> None:
    for run in runs:
        [kept] = [line for line in run.evaluations if line["step"] == run.state.step]
        assert kept["test_error"] == pytest.approx(run.test_error)
        assert watched_error(run) == "test_error"


def test_plain_and_residual_networks_have_a_panel_each(runs: list[Diagnosis]) -> None:
    plain = as_network(runs[0], "plain20-cifar")
    assert len(draw_curves(runs)) == 1
    assert ["plain networks" in panel for panel in draw_curves([plain, *runs])] == [True, False]
    assert all(
        panel.count("<polyline") == 2 * count
        for panel, count in zip(draw_curves([plain, *runs]), (1, 2), strict=True)
    )


def test_what_figure_7_claims_is_said_of_runs_that_differ_in_the_network_alone(runs: list[Diagnosis]) -> None:
    plain = replace(as_network(runs[0], "plain20-cifar"), responses=(0.9, 0.9))
    deep = replace(as_network(runs[0], "resnet32-cifar"), responses=(9.0,))
    first, second = (replace(run, responses=(0.4, 0.5)) for run in runs)
    behind = replace(deep, journal=deep.journal[:-1])  # has not come as far
    assert compare_responses([plain, first, second, deep, behind]) == [
        "a residual net responds less than the plain one: yes (mean 0.450 for resnet20-cifar, 0.900 for "
        "plain20-cifar; seed 0)",
        "a deeper residual net responds less: no (mean 9.000 for resnet32-cifar, 0.450 for resnet20-cifar; "
        "seed 0)",
    ]


def test_results_are_kept_as_files(runs: list[Diagnosis], tmp_path: Path) -> None:
    write_results(runs, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("figure6-a.svg", "figure7-a.svg", "figure7-b.svg", "results.json")
    ]
    for path in tmp_path.glob("*.svg"):
        ElementTree.parse(path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert [one["test_error"] for one in content] == [round(run.test_error, 3) for run in runs]
    assert content[0]["journal"][0]["event"] == "start"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 73.5, [0, 20, 40, 60]),
        (0, 3, [0, 1, 2, 3]),
        (0.9, 10.5, [2, 4, 6, 8, 10]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert choose_ticks(low, high) == ticks


def as_network(run: Diagnosis, network: str) -> Diagnosis:
    """The same run as if it had been of `network`."""
    return replace(run, recipe=replace(run.recipe, network=network))


def test_a_run_on_folders_is_reported_on_the_pictures_held_out(tmp_path: Path) -> None:
    recipe = load_recipe("finetune/photos", ["run.workers=0", "schedule.epochs=1", "optimizer.batch=6"])
    data = write_photos(tmp_path / "photos")
    train(recipe, data, tmp_path / "run", Ranks(torch.device("cpu")), Quiet())
    run = diagnose(tmp_path / "run", data)
    assert (len(run.test), run.trained_images) == (3, 18)
    assert run.test.images.shape[1:] == (32, 32, 3)
    page = write_page([run])
    assert "<td>18</td>" in page
    assert "8.75" not in page, "the paper's ResNet-20 saw other images"


def test_every_wrong_picture_shown_is_wrong(runs: list[Diagnosis]) -> None:
    captions = re.findall(r"<figcaption>(\w+), called<br>(\w+) ([\d.]+)%", write_page(runs[:1]))
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
