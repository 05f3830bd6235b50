"""`python -m training train`: build a run from a recipe, resume it if it was begun, finish it."""

import dataclasses
from pathlib import Path

import torch

from models.networks import find_architecture
from training.data.arrays import LabelledImages, split_validation
from training.data.cifar10 import load_cifar10
from training.data.source import MemorySource
from training.data.statistics import Statistics, measure_statistics
from training.distributed import Ranks
from training.environment import describe_environment
from training.errors import BadCheckpoint, RunMismatch
from training.initialise import initialise
from training.journal import Journal
from training.learner import Learner
from training.loop import Meter, Observer, Run
from training.measure import Score, measure_error
from training.recipe import Recipe, dump_recipe
from training.state import TrainState, list_checkpoints, load_state


def train(recipe: Recipe, data_root: Path, directory: Path, ranks: Ranks, observer: Observer) -> Path:
    """Run `recipe` to its end in `directory`, from its last checkpoint if it has one; returns the best one.

    Raises TrainingError.
    """
    training, validation = load_splits(recipe, data_root)
    statistics = measure_statistics(training, recipe.data)
    source = MemorySource(training, statistics, recipe, ranks)
    network = find_architecture(recipe.network).build(len(training.labels))
    initialise(network, recipe.run.seed)
    learner = Learner(recipe, network, recipe.steps(source.images), ranks)

    def validate() -> Score:
        return measure_error(learner.evaluated, validation, statistics, ranks)

    def capture(run: Run) -> TrainState:
        return capture_state(run, training.labels, statistics)

    directory.mkdir(parents=True, exist_ok=True)
    state = find_state(directory, recipe)
    run = Run(
        learner,
        source,
        validate if len(validation) else None,
        directory,
        Journal(directory / "metrics.jsonl", 0 if state is None else state.step),
        observer,
        capture,
    )
    if state is None:
        (directory / "recipe.json").write_text(dump_recipe(recipe))
    else:
        restore_state(run, state)
    run.journal.write("start", run.step, **describe_environment(ranks.device))
    run.finish()
    return directory / "best.pt"


def load_splits(recipe: Recipe, data_root: Path) -> tuple[LabelledImages, LabelledImages]:
    """The training and validation images of `recipe`; the test set is not touched."""
    everything, _ = load_cifar10(data_root)
    return split_validation(everything, recipe.data.validation, recipe.run.seed)


def capture_state(run: Run, labels: tuple[str, ...], statistics: Statistics) -> TrainState:
    """Everything `restore_state` needs."""
    learner = run.learner
    return TrainState(
        recipe=dump_recipe(run.recipe),
        step=run.step,
        model=learner.network.state_dict(),
        optimizer=learner.optimizer.state_dict(),
        schedule=learner.schedule,
        labels=list(labels),
        mean=statistics.mean,
        std=statistics.std,
        meter=dataclasses.asdict(run.meter),
        average=None if learner.average is None else learner.average.state_dict(),
        best_error=run.best_error,
        elapsed_s=run.elapsed_s,
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
    run.meter = Meter(**state.meter)


def find_state(directory: Path, recipe: Recipe) -> TrainState | None:
    """The newest readable checkpoint in `directory`; raises RunMismatch if it is of another recipe."""
    for path in reversed(list_checkpoints(directory)):
        try:
            state = load_state(path)
        except BadCheckpoint:
            continue  # torn by a crash of the machine; the one before it is whole
        if state.recipe != dump_recipe(recipe):
            raise RunMismatch(
                f"{directory} holds a run of another recipe (see its recipe.json); choose another --out"
            )
        return state
    return None


def use_threads(count: int | None) -> None:
    """Let torch compute on `count` cores, or leave its default."""
    if count is not None:
        torch.set_num_threads(count)
