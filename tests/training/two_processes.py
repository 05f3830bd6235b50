"""Run by torchrun in test_distributed: two processes take one step, or a whole run, and say what came out."""

import sys
from pathlib import Path

import torch

from tests.training.making import Quiet, tiny_recipe
from training.distributed import open_ranks
from training.task import open_task
from training.train import build_learner, train


def take_step(data: Path, out: Path) -> None:
    """Save the gradients of step 0, as every process has them."""
    recipe = tiny_recipe("run.precision=fp32")
    with open_ranks() as ranks:
        task = open_task(recipe, data, ranks, print)
        learner = build_learner(recipe, task, ranks)
        learner.step(next(iter(task.source.batches(0, 1))), 0)
        gradients = {name: value.grad for name, value in learner.network.named_parameters()}
        torch.save(gradients, out / f"gradients-{ranks.rank}.pt")


def run(data: Path, out: Path) -> None:
    """A whole run; every process reports the scores it got."""
    with open_ranks() as ranks:
        quiet = Quiet()
        train(tiny_recipe(), data, out / "run", ranks, quiet)
        torch.save([dict(values) for values in quiet.evaluations], out / f"scores-{ranks.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"step": take_step, "run": run}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
