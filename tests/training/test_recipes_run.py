"""Every recipe that ships takes twenty steps: small images and batches, everything else as it is written."""

from pathlib import Path

import pytest
import torch

from tests.training.making import Quiet, write_cifar10, write_imagenet, write_photos
from training.distributed import Ranks
from training.journal import read_journal
from training.recipe import list_recipes, load_recipe
from training.state import load_state
from training.train import train

SMALL = (
    "schedule.iterations=20",
    "optimizer.batch=2",
    "optimizer.lr=0.001",  # the recipes' own is for batches of 128 and more
    "run.evaluate_every_epochs=1000",
    "run.checkpoint_every_steps=1000",
    "run.compile=false",
)
CIFAR = ("data.validation=20",)
IMAGENET = (
    "optimizer.batch=4",
    "data.native_px=32",
    "augment.crop_px=32",
    "augment.shorter_side_px=[32, 60]",
    "run.workers=0",
)
FINETUNE = ("run.workers=0", "run.early_stop=100")
FAMILIES = {"cifar10": CIFAR, "imagenet": IMAGENET, "finetune": FINETUNE}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "cifar10": write_cifar10(folder / "c"),
        "imagenet": write_imagenet(folder / "i"),
        "finetune": write_photos(folder / "f"),
    }


@pytest.mark.parametrize("name", list_recipes())
def test_it_takes_twenty_steps(name: str, roots: dict[str, Path], tmp_path: Path) -> None:
    family = name.partition("/")[0]
    overrides = [*SMALL, *FAMILIES[family]]
    if load_recipe(name).schedule.epochs is not None:
        overrides[0] = f"schedule.epochs={20 * 2 / (100 if family == 'cifar10' else 18)}"  # of 2 images
    best = train(load_recipe(name, overrides), roots[family], tmp_path, Ranks(torch.device("cpu")), Quiet())
    state = load_state(best)
    assert state.step == 20
    assert all(value.isfinite().all() for value in state.model.values())
    assert read_journal(tmp_path / "metrics.jsonl")[-1]["event"] == "evaluation"


def test_the_paper_has_a_recipe_for_each_row() -> None:
    cifar = [f"cifar10/{kind}{depth}" for kind in ("plain", "resnet") for depth in (20, 32, 44, 56, 110)]
    imagenet = [f"imagenet/{name}" for name in ("plain18", "plain34", "resnet18", "resnet50", "resnet101")]
    options = [f"imagenet/resnet34-{option}" for option in "abc"]
    expected = {*cifar, "cifar10/resnet1202", *imagenet, *options, "imagenet/resnet152"}
    assert expected <= set(list_recipes())


@pytest.mark.parametrize(
    "name", [name for name in list_recipes() if name.startswith(("cifar10/resnet", "cifar10/plain"))]
)
def test_cifar_figures_are_those_of_section_4_2(name: str) -> None:
    recipe = load_recipe(name)
    rule, schedule = recipe.optimizer, recipe.schedule
    assert (rule.batch, rule.lr, rule.momentum, rule.weight_decay) == (128, 0.1, 0.9, 1e-4)
    assert (schedule.milestones, schedule.factor, schedule.iterations) == ((32_000, 48_000), 0.1, 64_000)
    assert (recipe.augment.pad_px, recipe.augment.flip, recipe.data.mean) == (4, True, "pixel")
    assert recipe.data.validation == 5000
    assert recipe.network == f"{name.partition('/')[2]}-cifar"
    warmup = (0.01, 80) if recipe.network in ("resnet110-cifar", "resnet1202-cifar") else (None, None)
    assert (schedule.warmup_lr, schedule.warmup_until_error) == warmup


@pytest.mark.parametrize(
    "name", [name for name in list_recipes() if name.startswith(("imagenet/resnet", "imagenet/plain"))]
)
def test_imagenet_figures_are_those_of_section_3_4(name: str) -> None:
    recipe = load_recipe(name)
    rule, augment, schedule = recipe.optimizer, recipe.augment, recipe.schedule
    assert (rule.batch, rule.lr, rule.momentum, rule.weight_decay) == (256, 0.1, 0.9, 1e-4)
    assert (augment.shorter_side_px, augment.crop_px, augment.lighting) == ((256, 480), 224, 0.1)
    assert (augment.flip, recipe.data.mean) == (True, "pixel")
    assert (schedule.kind, schedule.factor, schedule.iterations) == ("plateau", 0.1, 600_000)
