"""The command line: `python -m training train|...`. Parses arguments, calls one function, prints errors."""

import sys
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer
from rich.console import Console

from models.checkpoints.graph import CannotExport
from models.engines.base import EngineError
from models.integrity import BadVersion
from models.repository import ModelRepository, UnknownModel, VersionExists
from models.views.base import BadViewOption, ViewTooLarge
from training.data.cifar10 import load_cifar10
from training.data.fetch import ARCHIVES, fetch_archive
from training.disk import require_space
from training.distributed import open_ranks
from training.environment import describe_environment
from training.errors import DataMissing, TrainingError
from training.evaluate import evaluate_version, record_metrics
from training.export import export_run
from training.finetune import Finetune, finetune, name_after
from training.loop import Observer
from training.progress import SilentObserver, TensorBoardObserver, TerminalObserver
from training.recipe import list_recipes, load_recipe, parse_recipe
from training.refit import find_recipe, refit_version
from training.report.accuracy import draw_plot, format_table, list_rows, write_raw
from training.report.diagnosis import diagnose, measure_version_responses
from training.report.page import write_page
from training.report.results import write_results
from training.splits import open_splits, open_test_split
from training.state import load_state
from training.train import train, use_threads

ZOO = Path("models/zoo")
EXPECTED = (
    TrainingError,
    CannotExport,
    EngineError,
    BadVersion,
    UnknownModel,
    VersionExists,
    BadViewOption,
    ViewTooLarge,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

DataOption = Annotated[Path, typer.Option("--data", help="directory that holds the data set")]
RepositoryOption = Annotated[Path, typer.Option(help="where the model is")]


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
    with open_ranks() as ranks:
        directory = out or Path("runs") / resolved.name
        observer = _open_observer(directory) if ranks.is_main else SilentObserver()
        best = train(resolved, data, directory, ranks, observer)
        observer.say(f"best checkpoint: {best}")


@app.command("export")
def export_command(
    run: Annotated[Path, typer.Argument(help="a run directory, such as runs/cifar10/resnet20")],
    name: Annotated[str, typer.Option(help="the model's name")],
    repository: Annotated[Path, typer.Option("--to", help="where to put the version")],
    data: DataOption = Path("data"),
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
) -> None:
    """Turn a run's best checkpoint into a model version: fitted, measured, with int8 beside fp32."""
    use_threads(threads)
    recipe = parse_recipe(load_state(run / "best.pt").recipe)
    exported = export_run(run, name, repository, open_splits(recipe, data, typer.echo), typer.echo)
    typer.echo(format_table(list_rows(exported.rows)))
    typer.echo(f"{exported.version.reference} in {exported.version.path}")


@app.command("evaluate")
def evaluate_command(
    *,
    model: Annotated[str, typer.Argument(help="name or name@version")],
    data: DataOption = Path("data"),
    repository: RepositoryOption = ZOO,
    precision: Annotated[str, typer.Option(help="fp32 or int8")] = "fp32",
    tta: Annotated[list[str] | None, typer.Option(help="a view policy, may be repeated; all of them")] = None,
    to: Annotated[Path | None, typer.Option(help="write a version with these errors in its card")] = None,
    out: Annotated[Path | None, typer.Option(help="write the rows as JSON, and beside it the plot")] = None,
) -> None:
    """Measure a model version on the 10,000 CIFAR-10 test images, as the service would answer them.

    Errors count every image; costs are those of one core, on some of the images.
    """
    use_threads(1)
    repositories = ModelRepository([repository])
    version, split = repositories.find(model), open_test_split(data)
    measured = evaluate_version(version, repositories, split, precision, tta or ())
    rows = list_rows(measured)
    typer.echo(format_table(rows))
    if out is not None:
        with open_ranks() as ranks:
            about = describe_environment(ranks)
        images = len(split.images.targets)
        what = {"model": version.reference, "digest": version.digest, "precision": precision}
        what["architecture"] = version.card.architecture
        write_raw(
            out, {**what, "dataset": split.dataset, "split": split.name, "images": images, **about}, rows
        )
        title = f"{version.reference} ({version.card.architecture}), {images:,} images of {split.dataset}"
        out.with_suffix(".svg").write_text(draw_plot(title, rows), "utf-8")
        typer.echo(f"{out} and {out.with_suffix('.svg')}")
    if to is not None:
        written = record_metrics(version, measured, to)
        typer.echo(f"{written.reference} in {written.path}")


@app.command("fit")
def fit_command(
    model: Annotated[str, typer.Argument(help="name or name@version")],
    to: Annotated[Path, typer.Option(help="the repository to write the next version into")],
    data: DataOption = Path("data"),
    repository: RepositoryOption = ZOO,
) -> None:
    """Fit and measure a version's view policies anew, on the images its training held out."""
    use_threads(1)
    repositories = ModelRepository([repository])
    version = repositories.find(model)
    splits = open_splits(find_recipe(version, repositories), data, typer.echo)
    written, rows = refit_version(version, repositories, splits, to, typer.echo)
    typer.echo(format_table(list_rows(rows)))
    typer.echo(f"{written.reference} in {written.path}")


@app.command("finetune")
def finetune_command(
    *,
    data: Annotated[Path, typer.Option(help="your pictures: one folder for each class")],
    start: Annotated[str, typer.Option("--from", help="the model to begin with, name or name@version")],
    repository: Annotated[Path, typer.Option("--to", help="the repository the service reads")],
    name: Annotated[str | None, typer.Option(help="the new model's name; the folder's unless given")] = None,
    zoo: Annotated[list[Path] | None, typer.Option(help="where the model to begin with is")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
) -> None:
    """Teach a trained network your own classes and write a model version that the service picks up."""
    chosen = name or name_after(data)
    begun = ModelRepository([*(zoo or [ZOO]), repository]).find(start)
    asked = Finetune(data, begun, chosen, Path("runs/finetune") / chosen, repository, tuple(overrides or ()))
    with open_ranks() as ranks:
        exported = finetune(asked, ranks, _open_observer(asked.directory))
    typer.echo(format_table(list_rows(exported.rows)))
    typer.echo(f"{exported.version.reference} in {exported.version.path}")


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(help="run directories, all of the data set in --data")],
    data: DataOption = Path("data"),
    out: Annotated[Path, typer.Option(help="the HTML file to write")] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(help="a folder for figures and raw results as files")
    ] = None,
) -> None:
    """Write what runs showed: table 6, figures 6 and 7, confusion, worst mistakes, reliability."""
    diagnosed = [diagnose(run, data) for run in runs]
    out.write_text(write_page(diagnosed), encoding="utf-8")
    if figures is not None:
        write_results(diagnosed, figures)
    typer.echo(f"{out}: {len(runs)} runs")


@app.command("responses")
def responses_command(
    models: Annotated[list[str], typer.Argument(help="model versions of CIFAR-10, name or name@version")],
    data: DataOption = Path("data"),
    repository: Annotated[Path, typer.Option(help="where the models are")] = ZOO,
) -> None:
    """Print how strongly the 3x3 layers of model versions respond to test images (figure 7)."""
    _, test = load_cifar10(data)
    for model in models:
        version = ModelRepository([repository]).find(model)
        responses = measure_version_responses(version, test)
        typer.echo(f"{version.reference}: mean {mean(responses):.3f} of {len(responses)} layers")


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


def _open_observer(directory: Path) -> Observer:
    """The terminal, and TensorBoard's files in the run directory; raises DiskFull."""
    require_space(directory)
    return TensorBoardObserver(TerminalObserver(Console()), directory / "tensorboard")


def main() -> None:
    """Run the command line; an expected error is one line and exit status 1."""
    try:
        app()
    except EXPECTED as err:
        typer.echo(f"error: {err}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
