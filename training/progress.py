"""Shows a run to a person: a progress bar on a terminal, lines in a log file, TensorBoard beside either."""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from training.journal import Value
from training.loop import Observer

LINE_EVERY_S = 60.0  # in a log file


class TerminalObserver:
    """Loss, error, images/s and the time that is left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_s = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def saw_steps(self, step: int, steps: int, loss: float, error: float, images_per_s: float) -> None:
        text = f"loss {loss:.4f}  error {error:.2f} %  {images_per_s:.0f} images/s"
        if self._console.is_terminal:
            self._move_bar(step, steps, text)
        elif time.monotonic() - self._last_s >= LINE_EVERY_S:
            self._last_s = time.monotonic()
            self.say(f"step {step}/{steps}  {text}")

    def saw_evaluation(self, step: int, values: dict[str, Value]) -> None:
        shown = (f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, int | float))
        self.say("  ".join(shown))

    def say(self, sentence: str) -> None:
        self._console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def _move_bar(self, step: int, steps: int, text: str) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("", total=steps)
        self._bar.update(self._task, completed=step, description=text)
        if step == steps:
            self._bar.stop()


class TensorBoardObserver:
    """Writes what is evaluated for TensorBoard, and passes everything on; a run does not end for its sake."""

    def __init__(self, inner: Observer, directory: Path) -> None:
        self._inner = inner
        self._writer: SummaryWriter | None = SummaryWriter(str(directory))

    def saw_steps(self, step: int, steps: int, loss: float, error: float, images_per_s: float) -> None:
        self._inner.saw_steps(step, steps, loss, error, images_per_s)

    def saw_evaluation(self, step: int, values: dict[str, Value]) -> None:
        self._inner.saw_evaluation(step, values)
        try:
            self._write(step, values)
        except OSError as err:
            self._writer = None
            self.say(f"TensorBoard's files end at step {step}: {err.strerror}")

    def say(self, sentence: str) -> None:
        self._inner.say(sentence)

    def _write(self, step: int, values: dict[str, Value]) -> None:
        if self._writer is None:
            return
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()


class SilentObserver:
    """For the other processes of a run, which have nothing to add."""

    def saw_steps(self, step: int, steps: int, loss: float, error: float, images_per_s: float) -> None: ...

    def saw_evaluation(self, step: int, values: dict[str, Value]) -> None: ...

    def say(self, sentence: str) -> None: ...
