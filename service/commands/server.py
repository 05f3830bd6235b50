"""Which server a command asks: options that several commands share."""

from collections.abc import Callable
from typing import Any

import click

from service.client.client import DEFAULT_URL, SCHEMES

NOT_REACHED = 3  # exit code of every command that found no server


def _check_url(_: click.Context, __: click.Parameter, url: str) -> str:
    if not url.startswith(SCHEMES) or url in SCHEMES:
        raise click.BadParameter(f"{url!r} is no server: write http://host:8080 or grpc://host:8081")
    return url.rstrip("/")


def add_server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--url and --api-key."""
    key = click.option("--api-key", envvar="RESNET_API_KEY", help="key to send as a bearer token")
    url = click.option(
        "--url", default=DEFAULT_URL, show_default=True, callback=_check_url, help="http(s):// or grpc(s)://"
    )
    return url(key(command))
