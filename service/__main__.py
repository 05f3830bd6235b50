"""The command line, `resnet-serve` or `python -m service`."""

import errno
import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from models.catalog import find_entries
from service import commands
from service.version import NAME, find_version

ROOMS = ("models", "service", "training")
INTERRUPTED = 130  # what shells make of Ctrl-C


class _Commands(click.Group):
    """Imports what is asked for alone, as the service starts a quarter of a second sooner without its client.

    Says in a sentence what a command lacks: packages, a file it may write, room on a disk.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The name of every command, which is its module's."""
        return sorted(command.name or "" for command in find_entries(commands, "COMMAND", click.Command))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None where there is none."""
        if not cmd_name.isidentifier() or find_spec(f"{commands.__name__}.{cmd_name}") is None:
            return None
        found = getattr(import_module(f"{commands.__name__}.{cmd_name}"), "COMMAND", None)
        return found if isinstance(found, click.Command) else None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as err:
            if (err.name or "").partition(".")[0] in ROOMS:
                raise
            needed = f"{ctx.invoked_subcommand} needs {err.name}, which is not installed"
            raise click.ClickException(f"{needed}: pip install 'resnet-serve[serve]'") from err
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(INTERRUPTED)
        except OSError as err:
            if err.errno == errno.EPIPE:  # nobody reads on, as with `| head`; click ends quietly
                raise
            if err.filename is None:  # what is left in the buffer would fail once more when Python ends
                with (
                    suppress(OSError),
                    open(os.devnull, "wb") as nowhere,
                ):  # a test's standard output is no file
                    os.dup2(nowhere.fileno(), sys.stdout.fileno())
            raise click.ClickException(f"{err.filename or 'output'}: {err.strerror or err}") from err


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(find_version(), prog_name=NAME)
def main() -> None:
    """Serve ResNet image classifiers: one picture in, one answer out."""


if __name__ == "__main__":
    main(prog_name=NAME)
