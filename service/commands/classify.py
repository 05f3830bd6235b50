"""`resnet-serve classify`: what is in these pictures, asked of a server or, with --local, of no server."""

import glob
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from service.client import Client, ClientTls, ImageSource, Outcome
from service.commands.completion import complete_policy
from service.commands.progress import show_progress
from service.commands.server import NOT_REACHED, add_server_options
from service.commands.terminal import make_console
from service.commands.tls import add_tls_options
from service.errors import OurError, OverloadError, ServiceError
from service.private import run_private_service
from service.types import Classification

SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
SOME_FAILED = 1


@click.command("classify")
@click.argument("sources", nargs=-1, required=True)
@add_server_options
@click.option("--local", "is_local", is_flag=True, help="load the model here instead of asking a server")
@click.option("--repository", help="with --local: directories of model versions, separated by colons")
@click.option("--model", default="", help="name or name@version; the server's default if left out")
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(1, 1000), help="classes to answer")
@click.option(
    "--tta",
    shell_complete=complete_policy,
    help="view policy: center, mirror, ten_crop, dense, multi_scale, adaptive",
)
@click.option("--precision", type=click.Choice(["fp32", "int8"]))
@click.option(
    "--map",
    "map_path",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="write the activation map as PNG",
)
@click.option("--json", "is_json", is_flag=True, help="one JSON object a picture")
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="seconds a picture may take",
)
@add_tls_options
def COMMAND(
    sources: tuple[str, ...],
    url: str,
    is_local: bool,
    repository: str | None,
    model: str,
    top_k: int,
    tta: str | None,
    precision: str | None,
    map_path: Path | None,
    is_json: bool,
    timeout: float,
    api_key: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
) -> None:
    """Classify pictures: files, folders, patterns, or - for standard input.

    Exit code 0 when every picture got an answer, 1 when some did not, 2 for wrong use, 3 without a server.
    """
    names = list(_find_pictures(sources))
    if not names:
        raise click.UsageError(f"no picture among: {', '.join(sources)}")
    if map_path is not None:
        if len(names) > 1:
            raise click.UsageError("--map writes one file, so it takes one picture")
        if not map_path.absolute().parent.is_dir():
            raise click.UsageError(f"--map: there is no folder {map_path.parent}")
    options = {
        "model": model,
        "top_k": top_k,
        "tta": tta,
        "precision": precision,
        "wants_map": bool(map_path),
    }
    told = _Told(is_json)
    try:
        with ExitStack() as stack:
            if is_local:
                with show_progress("loading the model"):
                    url = stack.enter_context(run_private_service(repository))
            client = stack.enter_context(
                Client(url, api_key=api_key, tls=ClientTls(ca, cert, key), timeout_s=timeout, attempts=3)
            )
            for name, outcome in _ask(client, names, options):
                told.take(name, outcome)
                if map_path is not None and outcome.classification is not None and outcome.classification.map:
                    map_path.write_bytes(outcome.classification.map.png)
    except ServiceError as err:
        click.echo(err.detail, err=True)
        sys.exit(NOT_REACHED)
    told.finish()
    sys.exit(told.choose_exit_code())


class _Told:
    """What became of the pictures: printed as it comes, tables on a terminal once the bar is gone."""

    def __init__(self, is_json: bool) -> None:
        self._is_json = is_json
        self._tables: list[tuple[str, Classification]] = []
        self._answers = self._failures = self._ours = 0

    def take(self, name: str, outcome: Outcome) -> None:
        """One more."""
        error = outcome.error
        if error is None:
            self._answers += 1
        else:
            self._failures += 1
            self._ours += isinstance(error, OverloadError | OurError)
        if self._is_json:
            _print_json(name, outcome)
        elif error is not None:
            click.echo(f"{name}: {error.detail}", err=True)
        elif outcome.classification is not None:
            self._print_answer(name, outcome.classification)

    def finish(self) -> None:
        """Print what was kept."""
        for name, answer in self._tables:
            _print_table(name, answer)

    def choose_exit_code(self) -> int:
        """As the command's help says."""
        if self._failures and not self._answers and self._ours == self._failures:
            return NOT_REACHED
        return SOME_FAILED if self._failures else 0

    def _print_answer(self, name: str, answer: Classification) -> None:
        if sys.stdout.isatty():
            self._tables.append((name, answer))
            return
        for one in answer.predictions:
            click.echo(f"{name}\t{one.label}\t{one.probability:.6f}")


def _find_pictures(sources: Iterable[str]) -> Iterator[str]:
    for source in sources:
        if source == "-" or Path(source).is_file():
            yield source
        elif Path(source).is_dir():
            yield from sorted(
                str(path) for path in Path(source).rglob("*") if path.suffix.lower() in SUFFIXES
            )
        else:
            found = sorted(glob.glob(source, recursive=True))
            yield from found or [source]  # a name that matches nothing is told as a picture that failed


def _ask(client: Client, names: list[str], options: dict[str, Any]) -> Iterator[tuple[str, Outcome]]:
    images: list[ImageSource] = [sys.stdin.buffer.read() if name == "-" else name for name in names]
    with show_progress("classifying", len(names)) as advance:
        for name, outcome in zip(names, client.classify_many(images, **options), strict=True):
            yield name, outcome
            advance(outcome.index + 1)


def _print_json(name: str, outcome: Outcome) -> None:
    if outcome.classification is None:
        assert outcome.error is not None
        told: dict[str, Any] = {"error": {"type": outcome.error.slug, "detail": outcome.error.detail}}
    else:
        told = asdict(outcome.classification)
        told.pop("map")
    click.echo(json.dumps({"file": name, **told}))


def _print_table(name: str, answer: Classification) -> None:
    model, took = f"{answer.model.name}@{answer.model.version}", f"{answer.timings_ms.total:.1f} ms"
    title = f"{name}  ({model}, {answer.tta.used}, {took})"
    table = Table("class", "probability", "", title=title, title_justify="left")
    for one in answer.predictions:
        table.add_row(one.label, f"{100 * one.probability:.2f} %", "█" * round(20 * one.probability))
    make_console().print(table)
