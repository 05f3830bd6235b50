"""The learning rate: a pure function of the step and of a small frozen state.

He et al. 2015: divide by 10 at 32k and 48k (4.2), when the error plateaus (3.4); ResNet-110 begins at 0.01
until the training error is below 80 % (4.2).
"""

import math
from dataclasses import dataclass, replace

from training.recipe import ScheduleRecipe

WARMUP_WINDOW = 100  # steps whose training error is averaged before the 110-layer warm-up may end


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What the rate depends on besides the step. `recent` are the last training errors, in percent.

    `is_warm`: the error-bound warm-up has ended. `drops`: how often the plateau rule has fired; `best_error`
    and `stale` (evaluations without a better one) are its memory.
    """

    is_warm: bool = False
    recent: tuple[float, ...] = ()
    drops: int = 0
    best_error: float = math.inf
    stale: int = 0


def learning_rate(rule: ScheduleRecipe, peak: float, state: ScheduleState, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) in a run of `steps`; `peak` is optimizer.lr."""
    if is_warming(rule, state):
        return rule.warmup_lr if rule.warmup_lr is not None else peak
    if step < rule.warmup_iterations:
        return peak * (step + 1) / rule.warmup_iterations
    progress = (step - rule.warmup_iterations) / max(1, steps - rule.warmup_iterations)
    match rule.kind:
        case "step":
            return peak * rule.factor ** sum(step >= milestone for milestone in rule.milestones)
        case "plateau":
            return peak * rule.factor**state.drops
        case "cosine":
            return peak * (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return peak * (1 - progress)


def is_warming(rule: ScheduleRecipe, state: ScheduleState) -> bool:
    """Whether the run still waits for its training error to fall below `warmup_until_error`."""
    return rule.warmup_until_error is not None and not state.is_warm


def after_batch(rule: ScheduleRecipe, state: ScheduleState, error: float) -> ScheduleState:
    """Account for a step whose training error was `error` percent (only needed while warming)."""
    if rule.warmup_until_error is None or state.is_warm:
        return state
    recent = (*state.recent, error)[-WARMUP_WINDOW:]
    if len(recent) == WARMUP_WINDOW and sum(recent) / WARMUP_WINDOW < rule.warmup_until_error:
        return replace(state, is_warm=True, recent=())
    return replace(state, recent=recent)


def after_evaluation(rule: ScheduleRecipe, state: ScheduleState, error: float) -> ScheduleState:
    """Account for a validation error of `error` percent (the plateau rule)."""
    if rule.kind != "plateau":
        return state
    if error < state.best_error:
        return replace(state, best_error=error, stale=0)
    if state.stale + 1 >= rule.patience:
        return replace(state, drops=state.drops + 1, stale=0)
    return replace(state, stale=state.stale + 1)
