"""`python -m training train`: build a run from a recipe, resume it if it was begun, finish it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.networks import find_architecture
from training.distributed import Ranks, copy_buffers_from_main, wait_for_main
from training.environment import describe_environment
from training.errors import BadCheckpoint, BadRecipe, RunMismatch
from training.initialise import initialise
from training.journal import Journal
from training.learner import Learner
from training.loop import Meter, Observer, Run, Scorers
from training.measure import Score, measure_error
from training.recipe import Recipe, dump_recipe, parse_recipe
from training.start import load_start
from training.state import TrainState, list_checkpoints, load_state
from training.task import LabelledViews, Task, open_task


def train(recipe: Recipe, data_root: Path, directory: Path, ranks: Ranks, observer: Observer) -> Path:
    """Run `recipe` to its end in `directory`, from its last checkpoint if it has one; returns the best one.

    Raises TrainingError.
    """
    if recipe.optimizer.batch % ranks.world:
        raise BadRecipe(f"optimizer.batch {recipe.optimizer.batch} must divide by {ranks.world} processes")
    start = None if recipe.start is None else load_start(Path(recipe.start))
    task = open_task(recipe, data_root, ranks, observer.say, None if start is None else start.statistics)
    learner = build_learner(recipe, task, ranks)
    if start is not None:
        start.load_body(learner.network)
    directory.mkdir(parents=True, exist_ok=True)
    state = find_state(directory, recipe)
    if state is not None and state.labels != list(task.labels):
        raise RunMismatch(f"{directory} holds a run with other classes; choose another --out, or remove it")
    wait_for_main(ranks)  # everyone has looked before the main process writes
    run = Run(
        learner,
        task.source,
        Scorers(*(_scorer(learner, views, task, ranks) for views in (task.validation, task.test))),
        directory,
        Journal(directory / "metrics.jsonl", 0 if state is None else state.step, ranks.is_main),
        observer,
        lambda run: capture_state(run, task),
        ranks,
    )
    if state is not None:
        restore_state(run, state)
    elif ranks.is_main:
        (directory / "recipe.json").write_text(dump_recipe(recipe))
    run.journal.write("start", run.step, **describe_environment(ranks))
    run.finish()
    return directory / "best.pt"


def build_learner(recipe: Recipe, task: Task, ranks: Ranks) -> Learner:
    """A fresh network of the recipe, from its seed, and what trains it."""
    network = find_architecture(recipe.network).build(len(task.labels))
    initialise(network, recipe.run.seed)
    weights = None
    if recipe.optimizer.class_weights == "balanced":
        weights = balance_classes(task.targets, len(task.labels))
    return Learner(recipe, network, recipe.steps(task.source.images), ranks, weights)


def balance_classes(targets: NDArray[np.int64], classes: int) -> Tensor:
    """The weight of each class's loss, float32 [classes]: images / (classes * images of the class)."""
    counts = np.bincount(targets, minlength=classes)
    return torch.from_numpy(len(targets) / (classes * np.maximum(counts, 1))).float()


def capture_state(run: Run, task: Task) -> TrainState:
    """Everything `restore_state` needs."""
    learner = run.learner
    return TrainState(
        recipe=dump_recipe(run.recipe),
        step=run.step,
        model=learner.network.state_dict(),
        optimizer=learner.optimizer.state_dict(),
        schedule=learner.schedule,
        labels=list(task.labels),
        mean=task.statistics.mean,
        std=task.statistics.std,
        meter=dataclasses.asdict(run.meter),
        average=None if learner.average is None else learner.average.state_dict(),
        best_error=run.best_error,
        elapsed_s=run.elapsed_s,
        stale=run.stale,
    )


def restore_state(run: Run, state: TrainState) -> None:
    """Put a fresh run where `state` was captured."""
    learner = run.learner
    learner.network.load_state_dict(state.model)
    learner.optimizer.load_state_dict(state.optimizer)
    learner.schedule = state.schedule
    if learner.average is not None and state.average is not None:
        learner.average.load_state_dict(state.average)
    run.step, run.best_error, run.elapsed_s = state.step, state.best_error, state.elapsed_s
    run.stale, run.meter = state.stale, Meter(**state.meter)


def find_state(directory: Path, recipe: Recipe) -> TrainState | None:
    """The newest readable checkpoint in `directory`; raises RunMismatch if it is of another recipe."""
    for path in reversed(list_checkpoints(directory)):
        try:
            state = load_state(path)
        except BadCheckpoint:
            continue  # torn by a crash of the machine; the one before it is whole
        if parse_recipe(state.recipe) != recipe:
            raise RunMismatch(
                f"{directory} holds a run of another recipe (see its recipe.json); choose another --out"
            )
        return state
    return None


def use_threads(count: int | None) -> None:
    """Let torch compute on `count` cores, or leave its default."""
    if count is not None:
        torch.set_num_threads(count)


def _scorer(
    learner: Learner, views: Callable[[], LabelledViews] | None, task: Task, ranks: Ranks
) -> Callable[[], Score] | None:
    """What measures the learner's network on `views`, all processes together."""
    if views is None:
        return None

    def measure() -> Score:
        copy_buffers_from_main(learner.evaluated, ranks)
        return measure_error(learner.evaluated, views(), task.statistics, ranks)

    return measure
