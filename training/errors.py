"""What can go wrong in training, each with the remedy in its message.

TrainingError
├─ BadRecipe        the recipe or an override is wrong (the caller's)
├─ DataMissing      a data set is not where it was looked for, or is damaged (the caller's)
├─ RunMismatch      the run directory holds a run of another recipe (the caller's)
├─ BadCheckpoint    a checkpoint cannot be read (the disk's)
├─ DiskFull         a checkpoint or the log could not be written; the last good one stays (the disk's)
└─ NonFiniteLoss    the loss became infinite or NaN (the recipe's)
"""

from collections.abc import Sequence
from pathlib import Path


class TrainingError(Exception):
    """Base of everything training raises on purpose; the message is for the person at the keyboard."""


class BadRecipe(TrainingError):
    """A recipe, or a `--set key=value`, does not describe a run; the message names the field."""


class DataMissing(TrainingError):
    """Data are absent or damaged; the message names the file and the command that fetches it."""


class RunMismatch(TrainingError):
    """The run directory already holds a run of a different recipe."""


class BadCheckpoint(TrainingError):
    """A checkpoint is truncated or of another format."""


class DiskFull(TrainingError):
    """No space for a checkpoint or a line of the log; nothing that was there before is lost."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"no space to write {path}; the checkpoints before it are intact. "
            "Free some space and run the same command again"
        )


class NonFiniteLoss(TrainingError):
    """The loss of one step is not a number any more; names the step and the images of its batch."""

    def __init__(self, step: int, loss: float, indices: Sequence[int]) -> None:
        shown = ", ".join(str(index) for index in indices[:16])
        more = f" and {len(indices) - 16} more" if len(indices) > 16 else ""
        super().__init__(
            f"loss is {loss} at step {step}; its batch was training images {shown}{more}. "
            "Lower optimizer.lr, or look at these images"
        )
        self.step, self.indices = step, tuple(indices)
