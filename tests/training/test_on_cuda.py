"""What only a GPU can show; left out where there is none."""

from pathlib import Path

import pytest
import torch

from tests.training.making import Quiet, tiny_recipe, write_cifar10
from training.distributed import Ranks
from training.errors import BadRecipe
from training.state import load_state
from training.task import open_task
from training.train import build_learner, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar10(tmp_path_factory.mktemp("cifar"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("mixup", [0.0, 0.2], ids=["plain targets", "mixup"])
def test_a_graph_takes_the_steps_that_python_takes(data: Path, mixup: float) -> None:
    ranks = Ranks(torch.device("cuda", 0))
    results = []
    for is_graphed in ("false", "true"):
        recipe = tiny_recipe("run.precision=fp32", f"run.cuda_graph={is_graphed}", f"augment.mixup={mixup}")
        task = open_task(recipe, data, ranks, print)
        learner = build_learner(recipe, task, ranks)
        batches = enumerate(task.source.batches(0, 6))
        results.append(torch.stack([learner.step(batch, step) for step, batch in batches]))
        assert int(learner.network.state_dict()["bn1.num_batches_tracked"]) == 6
    plain, graphed = results
    assert torch.allclose(graphed, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_graphed_run_ends_and_is_kept(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("run.cuda_graph=true")
    best = train(recipe, data, tmp_path, Ranks(torch.device("cuda", 0)), Quiet())
    assert all(value.isfinite().all() for value in load_state(best).model.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_run_that_asks_for_a_graph_says_that_it_needs_a_gpu(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match="needs a CUDA device"):
        train(tiny_recipe("run.cuda_graph=true"), data, tmp_path, Ranks(torch.device("cpu")), Quiet())
