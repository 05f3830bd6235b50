"""A progress bar for whatever takes over a second: on standard error, where that is a terminal."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from service.commands.terminal import make_console

QUICK_S = 1.0  # what is over sooner shows none


@contextmanager
def show_progress(what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Yields a function that takes how much of `total` is done; without a total the bar only moves."""
    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False)
    task = progress.add_task(what, total=total)
    timer = threading.Timer(QUICK_S, progress.start)
    timer.daemon = True
    if console.is_terminal:
        timer.start()
    try:
        yield lambda done: progress.update(task, completed=done)
    finally:
        timer.cancel()
        if timer.is_alive():
            timer.join()
        if progress.live.is_started:
            progress.stop()
