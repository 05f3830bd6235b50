"""The training loop against a bare forward and backward pass: `python -m bench.training RECIPE --data DATA`.

Both train the same network at the same batch, precision and thread count; the bare loop repeats one synthetic
batch and has neither data, augmentation, schedule, log nor checkpoint. Rounds are interleaved and medians
quoted, because machines drift. The goal is 90 % of the bare loop. `--variants compile cuda_graph` adds the
same loop compiled, and as a CUDA graph; the losses of the first steps show that they do the same.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from models.networks import find_architecture
from training.data.source import Batch
from training.distributed import Ranks
from training.environment import describe_environment
from training.learner import Learner
from training.recipe import Recipe, load_recipe
from training.task import Task, open_task
from training.train import build_learner, use_threads

WARM_STEPS = 5
VARIANTS = ("compile", "cuda_graph")


def bare_step(recipe: Recipe, task: Task, ranks: Ranks) -> Callable[[], None]:
    """Forward, backward and update on one synthetic batch, written as plainly as can be."""
    network = find_architecture(recipe.network).build(len(task.labels)).to(ranks.device)
    network.to(memory_format=torch.channels_last)
    rule = recipe.optimizer
    optimizer = torch.optim.SGD(
        network.parameters(),
        1e-3,
        momentum=rule.momentum,
        nesterov=rule.nesterov,
        weight_decay=rule.weight_decay,
    )
    shape = next(iter(task.source.batches(0, 1))).x.shape
    x = torch.randn(shape, device=ranks.device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(len(task.labels), shape[:1], device=ranks.device)
    is_bf16 = recipe.run.precision == "bf16"

    def step() -> None:
        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=is_bf16):
            logits = network(x)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits.float(), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def real_step(learner: Learner, batches: Iterator[Batch]) -> Callable[[], None]:
    """A step of the training loop: the next batch, augmented, and everything `Learner.step` does."""
    position = iter(range(10**9))

    def step() -> None:
        learner.step(next(batches), next(position))

    return step


def first_losses(learner: Learner, task: Task) -> list[float]:
    """The losses of the first steps, which every form of the loop must share."""
    return [
        round(float(learner.step(batch, step)[0]), 4)
        for step, batch in enumerate(task.source.batches(0, WARM_STEPS))
    ]


def measure(step: Callable[[], None], steps: int, ranks: Ranks) -> float:
    """Seconds a step over `steps` steps."""
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", nargs="*", default=[], choices=VARIANTS, help="the loop in other forms")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    use_threads(asked.threads)
    ranks = Ranks(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    recipe = load_recipe(asked.recipe, asked.overrides)
    task = open_task(recipe, asked.data, ranks, print)
    learners = {
        name: build_learner(load_recipe(asked.recipe, [*asked.overrides, *extra]), task, ranks)
        for name, extra in [("training", []), *((name, [f"run.{name}=true"]) for name in asked.variants)]
    }
    losses = {name: first_losses(learner, task) for name, learner in learners.items()}
    steps = {
        "bare": bare_step(recipe, task, ranks),
        **{name: real_step(learner, task.source.batches(0, 10**9)) for name, learner in learners.items()},
    }
    for step in steps.values():
        measure(step, WARM_STEPS, ranks)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(asked.rounds):
        for name, step in steps.items():
            seconds[name].append(measure(step, asked.steps, ranks))
    rates = {name: recipe.optimizer.batch / statistics.median(times) for name, times in seconds.items()}
    report = {
        **describe_environment(ranks),
        "recipe": recipe.name,
        "network": recipe.network,
        "precision": recipe.run.precision,
        "batch": recipe.optimizer.batch,
        "rounds": asked.rounds,
        "steps_a_round": asked.steps,
        "images_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "spread_images_per_s": {
            name: [round(recipe.optimizer.batch / one, 1) for one in (max(times), min(times))]
            for name, times in seconds.items()
        },
        "share_of_bare": {name: round(rates[name] / rates["bare"], 3) for name in learners},
        "losses_of_the_first_steps": losses,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
