"""Everything needed to resume a run exactly, and how it reaches the disk.

A checkpoint is written beside its place, synced and renamed: a kill at any moment leaves the old one or the
new one. `step-*.pt` are the last k; `best.pt` is the one with the lowest validation error so far.
"""

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.disk import naming_a_full_disk
from training.errors import BadCheckpoint, DiskFull
from training.schedule import ScheduleState

FORMAT = 1
BEST = "best.pt"


@dataclass(slots=True)
class TrainState:
    """`step` steps are done. `model`, `optimizer`, `average`: state dicts; `elapsed_s`: training time.

    `mean`, `std`: see training.data.statistics; `meter`: the running sums since the last evaluation;
    `stale`: evaluations since the best one.
    Random numbers need no place here: they are a function of the step (training.randomness).
    """

    recipe: str
    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: ScheduleState
    labels: list[str]
    mean: Tensor
    std: Tensor
    meter: dict[str, float]
    average: dict[str, Tensor] | None = None
    best_error: float = math.inf
    elapsed_s: float = 0.0
    stale: int = 0

    @property
    def evaluated(self) -> dict[str, Tensor]:
        """The weights that are evaluated and exported: the average where the recipe keeps one."""
        return self.model if self.average is None else self.average


def save_state(state: TrainState, directory: Path, keep: int) -> Path:
    """Write `state` as step-NNNNNNNN.pt, then drop all but the last `keep`; raises DiskFull."""
    path = directory / f"step-{state.step:08d}.pt"
    fields = {name: getattr(state, name) for name in state.__slots__}
    write_atomically(path, {"format": FORMAT, **fields, "schedule": asdict(state.schedule)})
    for old in list_checkpoints(directory)[:-keep]:
        old.unlink()
    return path


def mark_best(path: Path) -> None:
    """Make best.pt the same file as `path`, atomically and without copying."""
    linked = path.with_name(f".{BEST}.{os.getpid()}")
    linked.unlink(missing_ok=True)
    os.link(path, linked)
    linked.replace(path.with_name(BEST))


def load_state(path: Path) -> TrainState:
    """Read a checkpoint (tensors and plain values only, nothing is executed); raises BadCheckpoint."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError by turns
        raise BadCheckpoint(f"{path} cannot be read; remove it to resume from the one before") from err
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise BadCheckpoint(f"{path} is not a checkpoint of this version (format {FORMAT})")
    schedule = ScheduleState(**content.pop("schedule"))
    return TrainState(schedule=schedule, **content)


def list_checkpoints(directory: Path) -> list[Path]:
    """The step checkpoints in `directory`, oldest first."""
    return sorted(directory.glob("step-*.pt"))


def write_atomically(path: Path, content: object) -> None:
    """torch.save to a neighbour, fsync, rename, fsync the directory; raises DiskFull and leaves no debris."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming_a_full_disk(path), draft.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync_directory(path.parent)
    except RuntimeError as err:  # torch reports a short write so
        raise DiskFull(path) from err
    finally:
        draft.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
