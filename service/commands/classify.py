"""`resnet-serve classify`: what is in these pictures, asked of a server or, with --local, of no server."""

import glob
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from service.client import Client, ImageSource, Outcome
from service.errors import OurError, OverloadError, ServiceError
from service.private import run_private_service
from service.types import Classification

SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
SOME_FAILED, BAD_USE, NOT_REACHED = 1, 2, 3
MANY = 20  # pictures from which a progress bar is shown


@click.command("classify")
@click.argument("sources", nargs=-1, required=True)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="http(s):// or grpc(s)://")
@click.option("--local", "is_local", is_flag=True, help="load the model here instead of asking a server")
@click.option("--repository", help="with --local: directories of model versions, separated by colons")
@click.option("--model", default="", help="name or name@version; the server's default if left out")
@click.option("--top-k", default=5, show_default=True, help="classes to answer")
@click.option("--tta", help="view policy: center, mirror, ten_crop, dense, multi_scale, adaptive")
@click.option("--precision", type=click.Choice(["fp32", "int8"]))
@click.option("--map", "map_path", type=click.Path(path_type=Path), help="write the activation map as PNG")
@click.option("--json", "is_json", is_flag=True, help="one JSON object a picture")
@click.option("--timeout", default=30.0, show_default=True, help="seconds a picture may take")
@click.option("--api-key", envvar="RESNET_API_KEY", help="key to send as a bearer token")
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
) -> None:
    """Classify pictures: files, folders, patterns, or - for standard input.

    Exit code 0 when every picture got an answer, 1 when some did not, 2 for wrong use, 3 without a server.
    """
    names = list(_find_pictures(sources))
    if not names:
        raise click.UsageError(f"no picture among: {', '.join(sources)}")
    if map_path is not None and len(names) > 1:
        raise click.UsageError("--map writes one file, so it takes one picture")
    options = {
        "model": model,
        "top_k": top_k,
        "tta": tta,
        "precision": precision,
        "wants_map": bool(map_path),
    }
    try:
        with (
            run_private_service(repository) if is_local else nullcontext(url) as where,
            Client(where, api_key=api_key, timeout_s=timeout, attempts=3) as client,
        ):
            outcomes = list(_ask(client, names, options))
    except ServiceError as err:
        click.echo(err.detail, err=True)
        sys.exit(NOT_REACHED)
    for name, outcome in zip(names, outcomes, strict=True):
        _print_json(name, outcome) if is_json else _print_outcome(name, outcome)
    if map_path is not None and outcomes[0].classification is not None and outcomes[0].classification.map:
        map_path.write_bytes(outcomes[0].classification.map.png)
    sys.exit(_choose_exit_code(outcomes))


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


def _ask(client: Client, names: list[str], options: dict[str, Any]) -> Iterator[Outcome]:
    images: Iterator[ImageSource] = (sys.stdin.buffer.read() if name == "-" else name for name in names)
    outcomes = client.classify_many(images, **options)
    if len(names) < MANY:
        return outcomes
    return iter(track(outcomes, "classifying", total=len(names), console=Console(stderr=True)))


def _choose_exit_code(outcomes: list[Outcome]) -> int:
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if (
        errors
        and len(errors) == len(outcomes)
        and all(isinstance(one, OverloadError | OurError) for one in errors)
    ):
        return NOT_REACHED
    return SOME_FAILED if errors else 0


def _print_json(name: str, outcome: Outcome) -> None:
    if outcome.classification is None:
        assert outcome.error is not None
        told: dict[str, Any] = {"error": {"type": outcome.error.slug, "detail": outcome.error.detail}}
    else:
        told = asdict(outcome.classification)
        told.pop("map")
    click.echo(json.dumps({"file": name, **told}))


def _print_outcome(name: str, outcome: Outcome) -> None:
    if outcome.classification is None:
        assert outcome.error is not None
        click.echo(f"{name}: {outcome.error.detail}", err=True)
    elif sys.stdout.isatty():
        _print_table(name, outcome.classification)
    else:
        for one in outcome.classification.predictions:
            click.echo(f"{name}\t{one.label}\t{one.probability:.6f}")


def _print_table(name: str, answer: Classification) -> None:
    model, took = f"{answer.model.name}@{answer.model.version}", f"{answer.timings_ms.total:.1f} ms"
    title = f"{name}  ({model}, {answer.tta.used}, {took})"
    table = Table("class", "probability", "", title=title, title_justify="left")
    for one in answer.predictions:
        table.add_row(one.label, f"{100 * one.probability:.2f} %", "█" * round(20 * one.probability))
    Console().print(table)
