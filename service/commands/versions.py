"""`resnet-serve versions`: model versions of a running service, over its admin port."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.table import Table

from service.client.outcome import ConnectionFailed
from service.client.versions import VersionsClient
from service.commands.terminal import make_console
from service.errors import ServiceError
from service.versions.census import VersionState

REFUSED, NOT_DONE, NOT_REACHED = 1, 2, 3
WHO_HELP = "its token, or an API key of the scope admin  [SERVE_ADMIN_TOKEN, RESNET_API_KEY]"
WAIT_S = 120.0  # as long as the supervisor gives a worker to start


@click.group("versions")
@click.option("--url", default="http://127.0.0.1:8082", show_default=True, help="the admin port")
@click.option("--token", envvar=["SERVE_ADMIN_TOKEN", "RESNET_API_KEY"], default="", help=WHO_HELP)
@click.pass_context
def COMMAND(context: click.Context, url: str, token: str) -> None:
    """List, send, choose, take back and delete model versions of a running service.

    Exit code 0: done, and up where it ought to be served; 1: the version was refused, the old one serves on;
    2: not done; 3: the service cannot be reached.
    """
    context.obj = (url, token)


@COMMAND.command("list")
@click.pass_obj
def list_versions(server: tuple[str, str]) -> None:
    """Every version in the repository and what became of it."""
    table = Table("version", "default", "state", "digest", "why")
    with _connect(server) as client:
        for one in client.list():
            default = "yes" if one.is_default else ""
            table.add_row(_name(one), default, one.state, one.digest[:12], one.reason or one.use or "")
    make_console().print(table)


@COMMAND.command("push")
@click.argument("path", type=click.Path(exists=True, allow_dash=True, path_type=Path))
@click.option("--activate", "is_activated", is_flag=True, help="make it what its name means")
@click.pass_obj
def push_version(server: tuple[str, str], path: Path, is_activated: bool) -> None:
    """Send PATH, a version's folder or an archive of it, and wait until it is served or refused. - is a pipe.

    It is served at once where it is the highest of its name and nobody has chosen another; else --activate.
    """
    with _connect(server) as client:
        state = client.send(sys.stdin.buffer) if str(path) == "-" else client.push(path)
        if is_activated and not state.is_default:
            state = client.activate(state.name, state.version)
        _tell_end(client.wait(state, WAIT_S))


@COMMAND.command("activate")
@click.argument("reference", metavar="NAME@VERSION")
@click.pass_obj
def activate_version(server: tuple[str, str], reference: str) -> None:
    """Make a version what its bare name means, and wait until it is served."""
    with _connect(server) as client:
        _tell_end(client.wait(client.activate(*_parse(reference)), WAIT_S))


@COMMAND.command("rollback")
@click.argument("name")
@click.pass_obj
def roll_back(server: tuple[str, str], name: str) -> None:
    """Back to the version that NAME meant before, and wait until it is served."""
    with _connect(server) as client:
        _tell_end(client.wait(client.roll_back(name), WAIT_S))


@COMMAND.command("remove")
@click.argument("reference", metavar="NAME@VERSION")
@click.pass_obj
def remove_version(server: tuple[str, str], reference: str) -> None:
    """Delete a version that is neither served nor the default."""
    with _connect(server) as client:
        client.remove(*_parse(reference))
    click.echo(f"{reference} is deleted")


@contextmanager
def _connect(server: tuple[str, str]) -> Iterator[VersionsClient]:
    try:
        with VersionsClient(*server) as client:
            yield client
    except ConnectionFailed as err:
        click.echo(f"{err.detail}; is SERVE_ADMIN_TOKEN or SERVE_API_KEYS set where it runs?", err=True)
        sys.exit(NOT_REACHED)
    except ServiceError as err:
        click.echo(err.detail, err=True)
        sys.exit(NOT_DONE)


def _parse(reference: str) -> tuple[str, int]:
    name, _, version = reference.partition("@")
    if not name or not version.isdecimal():
        raise click.BadParameter(f"{reference!r} is not NAME@VERSION, such as cifar10@2")
    return name, int(version)


def _name(state: VersionState) -> str:
    return f"{state.name}@{state.version}"


def _tell_end(state: VersionState) -> None:
    if state.state == "refused":
        click.echo(f"{_name(state)} is refused, the old one serves on: {state.reason}", err=True)
        sys.exit(REFUSED)
    is_up = "is served" if state.state == "ready" else "is kept, not served"
    means = f" and is what {state.name} means" if state.is_default else ""
    click.echo(f"{_name(state)} {is_up}{means}")
