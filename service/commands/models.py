"""`resnet-serve models`: what a server answers for."""

import json
import sys
from pathlib import Path

import click
from rich.table import Table

from service.client import Client, ClientTls
from service.commands.server import NOT_REACHED, add_server_options
from service.commands.terminal import make_console
from service.commands.tls import add_tls_options
from service.errors import ServiceError


@click.command("models")
@add_server_options
@add_tls_options
@click.option("--json", "is_json", is_flag=True, help="one JSON object a model")
def COMMAND(
    url: str, api_key: str | None, ca: Path | None, cert: Path | None, key: Path | None, is_json: bool
) -> None:
    """List the models a server answers for. Exit code 3 when it cannot be reached."""
    try:
        with Client(url, api_key=api_key, tls=ClientTls(ca, cert, key), attempts=1) as client:
            models = client.list_models()
    except ServiceError as err:
        click.echo(err.detail, err=True)
        sys.exit(NOT_REACHED)
    if is_json:
        for model in models:
            fields = {"name": model.name, "version": model.version, "default": model.is_default}
            click.echo(json.dumps(fields | {"labels": model.labels, "tta": model.policies}))
        return
    table = Table("model", "version", "default", "classes", "policies")
    console = make_console()
    for model in models:
        default = "yes" if model.is_default else ""
        policies = ", ".join(model.policies)
        row = (model.name, str(model.version), default, str(len(model.labels)), policies)
        if console.is_terminal:
            table.add_row(*row)
        else:
            click.echo("\t".join(row))
    if console.is_terminal:
        console.print(table)
