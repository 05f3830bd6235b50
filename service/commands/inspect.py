"""`resnet-serve inspect`: one model version's card, digests and self-test, without a server."""

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from models.card import ModelCard
from models.engines.base import EngineError, Placement
from models.ensemble import list_precisions, open_version
from models.integrity import BadVersion
from models.repository import ModelRepository, ModelVersion, UnknownModel, check_version, read_version
from models.selftest import SelfTestFailed, run_selftest
from service.commands.progress import show_progress
from service.commands.terminal import make_console, say
from service.settings import BadSettings, load_settings

BROKEN = 1
NOT_FOUND = 2


@click.command("inspect")
@click.argument("version")
@click.option("--repository", help="directories of model versions, separated by colons")
def COMMAND(version: str, repository: str | None) -> None:
    """Show VERSION (name, name@version, or a directory), check its files and run its self-test.

    Exit code 0 when all is well, 1 when the version is broken, 2 when there is none.
    """
    found, among = _find(version, repository)
    console = make_console()
    _print_card(console, found.card, found.digest)
    try:
        check_version(found.path)
        for precision in list_precisions(found, among, "cpu"):
            with show_progress(f"self-test {precision}"):
                told = _run_selftest(found, among, precision)
            say(console, f"self-test {precision}: {told}")
    except (BadVersion, SelfTestFailed, EngineError) as err:
        click.echo(f"broken: {err}", err=True)
        sys.exit(BROKEN)


def _find(reference: str, repository: str | None) -> tuple[ModelVersion, ModelRepository]:
    """The version, and where the members lie that it may have."""
    try:
        if Path(reference).is_dir():
            path = Path(reference).absolute()
            return read_version(path), ModelRepository([path.parent.parent])
        directories = (repository or load_settings().model_repository).split(":")
        among = ModelRepository([Path(one) for one in directories if one])
        return among.find(reference), among
    except (UnknownModel, BadVersion, BadSettings) as err:
        click.echo(str(err), err=True)
        sys.exit(NOT_FOUND)


def _run_selftest(version: ModelVersion, among: ModelRepository, precision: str) -> str:
    engine = open_version(version, among, Placement(precision=precision))
    result = run_selftest(version.card, engine, precision)
    engine.close()
    return f"{result.images} golden images, largest difference {result.difference:.2g}"


def _print_card(console: Console, card: ModelCard, digest: str) -> None:
    prepare, source = card.preprocess, card.provenance
    facts = {
        "model": f"{card.name}@{card.version}",
        "digest": digest,
        "architecture": card.architecture,
        "classes": f"{len(card.labels)}: {', '.join(card.labels[:12])}",
        "input": f"shorter side {prepare.resize_px} px, crop {prepare.crop_px} px, {prepare.interpolation}",
        "default policy": card.default_tta,
        "made": f"{source.kind} {source.created}",
        "from": f"recipe {source.recipe}, seed {source.seed}, commit {source.commit}",
    }
    facts |= {
        f"member {member.name}@{member.version}": f"weight {member.weight:g}, digest {member.digest}"
        for member in card.members
    }
    facts |= {f"SHA-256 {name}": sha256 for name, sha256 in sorted(card.files.items())}
    for name, value in facts.items():
        say(console, f"{name:15} {value}")
    if card.metrics:
        table = Table("data", "images", "policy", "precision", "top-1 error %", "top-5 error %")
        for row in card.metrics:
            top5 = "-" if row.top5_error is None else f"{row.top5_error:.2f}"
            data = f"{row.dataset} {row.split}"
            table.add_row(data, str(row.images), row.tta, row.precision, f"{row.top1_error:.2f}", top5)
        console.print(table)
