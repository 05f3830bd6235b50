"""`resnet-serve keys`: make, list and revoke the API keys of a file."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from service.commands.terminal import make_console

if TYPE_CHECKING:
    from service.access.keys import ApiKey, Scope

_FILE = click.option(
    "--file",
    "path",
    envvar="SERVE_API_KEYS",
    default="keys.json",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="the file, as in SERVE_API_KEYS",
)


@click.group("keys")
def COMMAND() -> None:
    """API keys: the file holds hashes, a running server reads it again within a second."""


@COMMAND.command("add")
@_FILE
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["classify", "batch", "metrics", "admin"]),
    default=["classify"],
    show_default=True,
    help="what it may do; may be given several times",
)
@click.option("--rate", type=click.FloatRange(0.001, 1e6), help="images a second; no limit if left out")
@click.option(
    "--burst", type=click.IntRange(1, 1_000_000), help="images at once; a second's worth if left out"
)
@click.option(
    "--weight", type=click.FloatRange(0.01, 100), default=1.0, show_default=True, help="share under load"
)
@click.option("--days", type=click.FloatRange(0.001), help="days until it expires; never if left out")
@click.option("--note", default="", help="whose it is")
def add(
    path: Path,
    scopes: tuple["Scope", ...],
    rate: float | None,
    burst: int | None,
    weight: float,
    days: float | None,
    note: str,
) -> None:
    """Make a key and print it, this once: it cannot be read back."""
    from service.access.keys import default_burst, make_key, write_keys

    keys = _read(path) if path.exists() else {}
    made, key = make_key(frozenset(scopes))
    expires = None if days is None else (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
    keys[made.id] = replace(
        made, rate_per_s=rate, burst=burst or default_burst(rate), weight=weight, expires=expires, note=note
    )
    write_keys(path, keys)
    click.echo(key)


@COMMAND.command("list")
@_FILE
def list_keys(path: Path) -> None:
    """What the keys may do; the keys themselves are nowhere."""
    table = Table("id", "scopes", "rate", "weight", "expires", "note")
    for key in _read(path).values():
        rate = "" if key.rate_per_s is None else f"{key.rate_per_s:g}/s, {key.burst} at once"
        expires = "" if key.expires is None else key.expires.isoformat()
        table.add_row(key.id, " ".join(sorted(key.scopes)), rate, f"{key.weight:g}", expires, key.note)
    make_console().print(table)


@COMMAND.command("revoke")
@_FILE
@click.argument("id")
def revoke(path: Path, id: str) -> None:
    """Take the key with this id out of the file; servers refuse it within a second."""
    from service.access.keys import write_keys

    keys = _read(path)
    if keys.pop(id, None) is None:
        raise click.ClickException(f"{path} has no key {id}; `resnet-serve keys list` tells what it has")
    write_keys(path, keys)


def _read(path: Path) -> dict[str, "ApiKey"]:
    from service.access.keys import BadKeyFile, read_keys

    try:
        return read_keys(path)
    except BadKeyFile as err:
        raise click.ClickException(str(err)) from err
