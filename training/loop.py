"""The training loop: steps, and between them the log, the evaluations and the checkpoints.

Losses stay on the device and are looked at every LOOK_EVERY steps, so a GPU never waits for them; no
evaluation and no checkpoint happens before they have been looked at.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from training.data.source import Source
from training.distributed import Ranks, sum_over_ranks
from training.errors import NonFiniteLoss
from training.journal import Journal, Value
from training.learner import Learner
from training.measure import Score
from training.recipe import Recipe
from training.sampler import batch_indices
from training.state import TrainState, mark_best, save_state

LOOK_EVERY = 50


class Observer(Protocol):
    """Whoever shows a run to a person."""

    def saw_steps(self, step: int, steps: int, loss: float, error: float, images_per_s: float) -> None:
        """Steps up to `step` are done; `loss` and `error` (percent) are means since the last evaluation."""
        ...

    def saw_evaluation(self, step: int, values: dict[str, Value]) -> None:
        """The validation split was measured."""
        ...

    def say(self, sentence: str) -> None:
        """Something a person should know, such as a broken image."""
        ...


@dataclass(slots=True)
class Meter:
    """Running sums since the last evaluation, over every image of every process's batches."""

    loss: float = 0.0
    wrong: float = 0.0
    images: float = 0.0
    steps: float = 0.0

    def add(self, loss: float, wrong: float, images: int) -> None:
        """Account for one step."""
        self.loss, self.wrong = self.loss + loss, self.wrong + wrong
        self.images, self.steps = self.images + images, self.steps + 1

    @property
    def mean_loss(self) -> float:
        """Mean of the steps' losses."""
        return self.loss / max(1.0, self.steps)

    @property
    def error(self) -> float:
        """Share of wrong training predictions, in percent."""
        return 100 * self.wrong / max(1.0, self.images)


@dataclass(frozen=True, slots=True)
class Scorers:
    """What measures the network between steps, None where there are no such images.

    `validate` chooses; `watch` scores the test images for the log alone.
    """

    validate: Callable[[], Score] | None
    watch: Callable[[], Score] | None = None


@dataclass(slots=True)
class Run:
    """A run in progress; `step` steps are done."""

    learner: Learner
    source: Source
    scorers: Scorers
    directory: Path
    journal: Journal
    observer: Observer
    capture: Callable[["Run"], TrainState]
    ranks: Ranks
    step: int = 0
    best_error: float = math.inf
    elapsed_s: float = 0.0
    stale: int = 0
    meter: Meter = field(default_factory=Meter)

    @property
    def recipe(self) -> Recipe:
        """What is being run."""
        return self.learner.recipe

    def finish(self) -> None:
        """Take every step that is left; raises NonFiniteLoss, DiskFull."""
        if self._is_stale():
            return
        pending: list[Tensor] = []
        started, first = time.monotonic(), self.step
        before_s = self.elapsed_s
        for batch in self.source.batches(self.step, self.learner.steps):
            pending.append(self.learner.step(batch, self.step))
            self.step += 1
            self.elapsed_s = before_s + time.monotonic() - started
            is_evaluating, is_saving = self._is_evaluation_due(), self._is_checkpoint_due()
            if is_evaluating or is_saving or self.learner.is_warming or len(pending) == LOOK_EVERY:
                self._look(pending)
                pending.clear()
                rate = (self.step - first) * self.recipe.optimizer.batch / (time.monotonic() - started)
                self.observer.saw_steps(
                    self.step, self.learner.steps, self.meter.mean_loss, self.meter.error, rate
                )
            is_best = is_evaluating and self._evaluate()
            if is_evaluating or is_saving:
                self._save(is_best)
            if self._is_stale():
                return

    def _is_evaluation_due(self) -> bool:
        """At the end of every `evaluate_every_epochs`, and at the end."""
        every = self.recipe.run.evaluate_every_epochs * self.source.images / self.recipe.optimizer.batch
        return int(self.step / every) > int((self.step - 1) / every) or self.step == self.learner.steps

    def _is_checkpoint_due(self) -> bool:
        return self.step % self.recipe.run.checkpoint_every_steps == 0

    def _is_stale(self) -> bool:
        """Whether `early_stop` evaluations have passed without a better one."""
        limit = self.recipe.run.early_stop
        return limit is not None and self.stale >= limit

    def _look(self, pending: list[Tensor]) -> None:
        """Fetch the losses of the last steps; raises NonFiniteLoss naming the first bad step."""
        images = self.recipe.optimizer.batch
        first = self.step - len(pending)
        sums = sum_over_ranks(torch.stack(pending), self.ranks).tolist()
        for step, (loss, wrong) in enumerate(sums, start=first):
            if not math.isfinite(loss):
                indices = batch_indices(self.recipe.run.seed, step, images, self.source.images)
                raise NonFiniteLoss(step, loss, indices.tolist())
            self.meter.add(loss, wrong, images)
            self.learner.saw_batch(100 * wrong / images)

    def _evaluate(self) -> bool:
        """Measure the validation split, log, and say whether this is the best so far."""
        values: dict[str, Value] = {
            "epoch": round(self.step * self.recipe.optimizer.batch / self.source.images, 3),
            "lr": self.learner.rate(max(0, self.step - 1)),
            "train_loss": self.meter.mean_loss,
            "train_error": self.meter.error,
            "elapsed_s": round(self.elapsed_s, 3),
        }
        is_best = self.scorers.validate is None  # without a split to choose by, the last one counts
        if self.scorers.validate is not None:
            score = self.scorers.validate()
            self.learner.saw_evaluation(score.error)
            is_best = score.error < self.best_error
            self.best_error = min(self.best_error, score.error)
            self.stale = 0 if is_best else self.stale + 1
            values |= {"validation_error": score.error, "validation_loss": score.loss}
        if self.scorers.watch is not None:
            values["test_error"] = self.scorers.watch().error
        self.meter = Meter()
        self.journal.write("evaluation", self.step, **values)
        self.observer.saw_evaluation(self.step, values)
        return is_best

    def _save(self, is_best: bool) -> None:
        if self.ranks.is_main:
            path = save_state(self.capture(self), self.directory, self.recipe.run.keep_checkpoints)
            if is_best:
                mark_best(path)
