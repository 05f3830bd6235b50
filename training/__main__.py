"""The command line: `python -m training train|...`. Parses arguments, calls one function, prints errors."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from training.data.fetch import ARCHIVES, fetch_archive
from training.distributed import find_ranks
from training.errors import DataMissing, TrainingError
from training.progress import TerminalObserver
from training.recipe import list_recipes, load_recipe
from training.train import train, use_threads

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

DataOption = Annotated[Path, typer.Option("--data", help="directory that holds the data set")]


@app.command("train")
def train_command(
    recipe: Annotated[str, typer.Argument(help="a recipe's name, or a .toml file")],
    data: DataOption = Path("data"),
    out: Annotated[Path | None, typer.Option(help="run directory; runs/RECIPE unless given")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
) -> None:
    """Train a recipe, or go on with it where it stopped."""
    use_threads(threads)
    resolved = load_recipe(recipe, overrides or ())
    best = train(resolved, data, out or Path("runs") / resolved.name, find_ranks(), TerminalObserver())
    typer.echo(f"best checkpoint: {best}")


@app.command("fetch")
def fetch_command(
    dataset: Annotated[str, typer.Argument(help=f"one of: {', '.join(ARCHIVES)}")],
    data: DataOption = Path("data"),
) -> None:
    """Download a data set from its home, check it and unpack it."""
    if dataset not in ARCHIVES:
        raise DataMissing(f"no data set is named {dataset!r}; there are: {', '.join(ARCHIVES)}")
    fetch_archive(ARCHIVES[dataset], data)
    typer.echo(f"{dataset} is in {data}")


@app.command("recipes")
def recipes_command() -> None:
    """List the recipes that ship with the project."""
    for name in list_recipes():
        typer.echo(name)


def main() -> None:
    """Run the command line; an expected error is one line and exit status 1."""
    try:
        app()
    except TrainingError as err:
        typer.echo(f"error: {err}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
