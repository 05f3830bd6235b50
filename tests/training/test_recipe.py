"""Recipes: where they come from and what is refused."""

from pathlib import Path

import pytest
import torch

from training.distributed import Ranks
from training.errors import BadRecipe
from training.graphed import require_graphs
from training.recipe import dump_recipe, list_recipes, load_recipe, parse_recipe


@pytest.mark.parametrize("name", list_recipes())
def test_a_resolved_recipe_is_read_back_as_it_was(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert parse_recipe(dump_recipe(recipe)) == recipe


def test_overrides_come_last() -> None:
    recipe = load_recipe(
        "cifar10/short-resnet20", ["optimizer.lr=0.3", "network=plain20-cifar", "run.compile=true"]
    )
    assert (recipe.optimizer.lr, recipe.network, recipe.run.compile) == (0.3, "plain20-cifar", True)


def test_a_file_can_start_from_a_shipped_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "cifar10/short-resnet20"\n[optimizer]\nlr = 0.05\n')
    recipe = load_recipe(str(path))
    assert recipe.name == "mine"
    assert recipe.optimizer.lr == 0.05
    assert recipe.optimizer.nesterov


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr", "is not section.key=value"),
        ("optimizer.rate=1", "optimizer.rate"),
        ("optimizer.lr=fast", "optimizer.lr"),
        ("network.depth=3", "network is not a section"),
        ("schedule.iterations=5", "exactly one of iterations and epochs"),
        ("run.precision=fp8", "run.precision"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(BadRecipe, match=message):
        load_recipe("cifar10/short-resnet20", [override])


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(BadRecipe, match="cifar10/short-resnet20"):
        load_recipe("cifar10/resnet21")


@pytest.mark.parametrize(
    ("ranks", "overrides", "message"),
    [
        (Ranks(torch.device("cpu")), [], "needs a CUDA device"),
        (Ranks(torch.device("cuda", 0), 0, 2), [], "is for one process"),
        (Ranks(torch.device("cuda", 0)), ["run.compile=true"], "exclude each other"),
    ],
    ids=["on a CPU", "with two processes", "compiled too"],
)
def test_a_cuda_graph_is_refused_where_it_cannot_be_had(
    ranks: Ranks, overrides: list[str], message: str
) -> None:
    recipe = load_recipe("cifar10/short-resnet20", ["run.cuda_graph=true", *overrides])
    with pytest.raises(BadRecipe, match=message):
        require_graphs(recipe, ranks)
