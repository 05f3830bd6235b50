"""The options of every command that speaks to a server over TLS."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])
_PATH = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option("--key", envvar="RESNET_CLIENT_KEY", type=_PATH, help="the key of --cert"),
    click.option("--cert", envvar="RESNET_CLIENT_CERT", type=_PATH, help="certificate to show, for mTLS"),
    click.option("--ca", envvar="RESNET_CA", type=_PATH, help="authorities to believe, not the system's"),
)


def add_tls_options(command: Command) -> Command:
    """--ca, --cert and --key, in this order."""
    for option in _OPTIONS:
        command = option(command)
    return command
