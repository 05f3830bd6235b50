"""`resnet-serve batch`: score a folder, an archive or a prefix of a store without a server."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from service.commands.terminal import make_console, say
from service.errors import ServiceError
from service.settings import BadSettings, load_settings

SOME_FAILED, NOT_STARTED, INTERRUPTED = 1, 2, 130
REFRESH_S = 0.2
SHOWN_CLASSES = 20


@click.command("batch")
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path), help=".parquet, .csv or .ndjson")
@click.option("--model", default="", help="name or name@version; the default model where absent")
@click.option("--model-repository", help="directories of model versions, separated by colons")
@click.option("--tta", help="view policy; the card's default where absent")
@click.option("--top-k", default=5, show_default=True, help="how many classes")
@click.option("--precision", type=click.Choice(["fp32", "int8"]), help="fp32 where absent")
@click.option("--threads", type=click.IntRange(1), help="one per available core where absent")
@click.option("--overwrite", is_flag=True, help="replace OUT where it exists")
def COMMAND(source: str, out: Path, overwrite: bool, **given: Any) -> None:
    """Score every image of SOURCE: a folder, a zip, tar or tar.gz, lines of JSON, one image, or a URL.

    An interrupted run goes on where it stopped. Exit code 0: every image was classified; 1: some were not,
    their rows say why; 2: nothing was begun; 130: interrupted.
    """
    console = make_console(stderr=True)
    if out.exists() and not overwrite:
        say(console, f"{out} is there already; remove it, or add --overwrite", "red")
        sys.exit(NOT_STARTED)
    try:
        sys.exit(_score(source, out, given, console))
    except (ServiceError, BadSettings) as err:
        say(console, str(err), "red")
        sys.exit(NOT_STARTED)


def _score(source: str, out: Path, given: dict[str, Any], console: Console) -> int:
    from service.offline.model import open_model
    from service.offline.run import OfflineRun, Plan
    from service.offline.scorer import OfflineScorer

    repository = given["model_repository"]
    settings = load_settings({"model_repository": repository} if repository else {})
    model = open_model(settings, given)
    run = OfflineRun(Plan(source, model.digest, model.options), out, settings)
    run.prepare()
    started = time.monotonic()
    scorer = OfflineScorer(model.loaded, model.labels, model.options)
    with _show_progress(console) as progress:
        task = progress.add_task(model.reference, total=run.summary.total, rate="")
        is_over = threading.Event()

        def refresh() -> None:
            while not is_over.wait(REFRESH_S):
                done = run.summary.done
                rate = (done - run.summary.resumed) / (time.monotonic() - started)
                progress.update(task, completed=done, rate=f"{rate:,.0f} images/s")

        refreshing = threading.Thread(target=refresh, daemon=True)
        refreshing.start()
        try:
            run.score(scorer, model.threads)
        except KeyboardInterrupt:
            say(console, f"interrupted after {run.summary.done} images; the same command goes on from there")
            return INTERRUPTED
        finally:
            is_over.set()
            refreshing.join()
        progress.update(task, completed=run.summary.done)
    run.write()
    _print_summary(run.summary, time.monotonic() - started, out, console)
    return SOME_FAILED if run.summary.failed else 0


def _show_progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
    )


def _print_summary(summary: Any, took_s: float, out: Path, console: Console) -> None:
    table = Table("class", "images")
    for label, count in summary.classes.most_common(SHOWN_CLASSES):
        table.add_row(label, f"{count:,}")
    if len(summary.classes) > SHOWN_CLASSES:
        table.add_row(f"{len(summary.classes) - SHOWN_CLASSES} more", "")
    console.print(table)
    scored = summary.done - summary.resumed
    earlier = f", {summary.resumed:,} of them by an earlier run" if summary.resumed else ""
    say(
        console,
        f"{summary.done:,} images{earlier}: {summary.failed:,} failed; "
        f"{scored / took_s:,.0f} images/s; {out}",
    )
