"""Shows a run on the terminal: one line a minute at most, and one for every evaluation."""

import time

import typer

from training.journal import Value

LINE_EVERY_S = 60.0


class TerminalObserver:
    """Prints progress with loss, error, images/s and the time that is left."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def saw_steps(self, step: int, steps: int, loss: float, error: float, images_per_s: float) -> None:
        now = time.monotonic()
        if now - self._last_s < LINE_EVERY_S:
            return
        self._last_s = now
        typer.echo(f"step {step}/{steps}  loss {loss:.4f}  error {error:.2f} %  {images_per_s:.0f} images/s")

    def say(self, sentence: str) -> None:
        typer.echo(sentence)

    def saw_evaluation(self, step: int, values: dict[str, Value]) -> None:
        typer.echo("  ".join(f"{name} {value}" for name, value in values.items()))


class SilentObserver:
    """For the other processes of a run, which have nothing to add."""

    def saw_steps(self, step: int, steps: int, loss: float, error: float, images_per_s: float) -> None: ...

    def saw_evaluation(self, step: int, values: dict[str, Value]) -> None: ...

    def say(self, sentence: str) -> None: ...
