"""What a person sees of a run."""

import io
from pathlib import Path

from rich.console import Console
from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

from tests.training.making import Quiet
from training.progress import TensorBoardObserver, TerminalObserver


def test_a_terminal_gets_a_bar_with_loss_error_rate_and_time_left() -> None:
    text = io.StringIO()
    observer = TerminalObserver(Console(file=text, force_terminal=True, width=120))
    for step in (1, 2, 4):
        observer.saw_steps(step, 4, loss=1.25, error=40.0, images_per_s=812.0)
    assert "loss 1.2500  error 40.00 %  812 images/s" in text.getvalue()
    assert "4/4" in text.getvalue()
    assert "0:00:00" in text.getvalue()


def test_a_log_file_gets_a_line_a_minute_and_every_evaluation() -> None:
    text = io.StringIO()
    observer = TerminalObserver(Console(file=text))
    for step in range(1, 50):
        observer.saw_steps(step, 50, loss=1.25, error=40.0, images_per_s=812.0)
    observer.saw_evaluation(49, {"epoch": 1.0, "validation_error": 12.3456})
    assert text.getvalue().splitlines() == [
        "step 1/50  loss 1.2500  error 40.00 %  812 images/s",
        "epoch 1  validation_error 12.35",
    ]


def test_tensorboard_reads_the_evaluations(tmp_path: Path) -> None:
    quiet = Quiet()
    observer = TensorBoardObserver(quiet, tmp_path)
    observer.saw_evaluation(10, {"validation_error": 12.5})
    observer.saw_evaluation(20, {"validation_error": 10.5})
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = events.Scalars("validation_error")
    assert [(event.step, event.value) for event in scalars] == [(10, 12.5), (20, 10.5)]
    assert len(quiet.evaluations) == 2
