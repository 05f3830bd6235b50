"""Two real processes under torchrun against one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models.networks import find_architecture
from tests.training.making import Quiet, tiny_recipe, write_cifar10
from training.distributed import Ranks
from training.errors import BadRecipe
from training.initialise import initialise
from training.journal import read_journal
from training.state import load_state
from training.task import open_task
from training.train import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar10(tmp_path_factory.mktemp("cifar"))


def launch(what: str, data: Path, out: Path) -> None:
    """torchrun with two processes on a free port."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.training.two_processes", what, str(data), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_step_of_two_processes_equals_one_with_batch_norm_over_the_same_halves(
    data: Path, tmp_path: Path
) -> None:
    launch("step", data, tmp_path)
    recipe = tiny_recipe("run.precision=fp32")
    task = open_task(recipe, data, Ranks(torch.device("cpu")), print)
    network = find_architecture(recipe.network).build(10)
    initialise(network, recipe.run.seed)
    network.train()
    batch = next(iter(task.source.batches(0, 1)))
    for x, targets in zip(batch.x.chunk(2), batch.targets.chunk(2), strict=True):
        (F.cross_entropy(network(x), targets) / 2).backward()  # type: ignore[no-untyped-call]
    both = [torch.load(tmp_path / f"gradients-{rank}.pt", weights_only=True) for rank in range(2)]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(both[0][name], both[1][name])
        assert torch.allclose(both[0][name], parameter.grad, atol=1e-5), name


def test_a_run_of_two_processes_measures_every_image_once(data: Path, tmp_path: Path) -> None:
    launch("run", data, tmp_path)
    first, second = (torch.load(tmp_path / f"scores-{rank}.pt", weights_only=True) for rank in range(2))
    assert [line["validation_error"] for line in first] == [line["validation_error"] for line in second]
    state = load_state(tmp_path / "run/best.pt")
    assert state.best_error == min(line["validation_error"] for line in first)
    # 20 validation images: every error is a multiple of 5 %
    assert all(
        abs(line["validation_error"] / 5 - round(line["validation_error"] / 5)) < 1e-9 for line in first
    )
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    evaluations = [json.loads(line) for line in lines if json.loads(line)["event"] == "evaluation"]
    assert len(evaluations) == len(first), "only the main process writes"
    assert str(read_journal(tmp_path / "run/metrics.jsonl")[0]["hardware"]).startswith("2 x ")


def test_a_batch_that_cannot_be_shared_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match="must divide by 3 processes"):
        train(tiny_recipe(), data, tmp_path, Ranks(torch.device("cpu"), 0, 3), Quiet())
