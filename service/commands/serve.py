"""`resnet-serve serve`: run the service until SIGTERM or Ctrl-C."""

import dataclasses
import sys

import click

from service.settings import PREFIX, BadSettings, Settings, load_settings


def _make_option(field: "dataclasses.Field[object]") -> click.Option:
    flag = "--" + field.name.replace("_", "-")
    meaning = f"{field.metadata['meaning']} [{PREFIX}{field.name.upper()}; {field.default}]"
    return click.Option([flag, field.name], help=meaning, metavar="VALUE")


def _serve(**given: str | None) -> None:
    from service.app import run_service

    overrides = {name: value for name, value in given.items() if value is not None}
    try:
        sys.exit(run_service(load_settings(overrides)))
    except BadSettings as err:
        click.echo(str(err), err=True)
        sys.exit(2)


COMMAND = click.Command(
    "serve",
    callback=_serve,
    params=[_make_option(field) for field in dataclasses.fields(Settings)],
    help="Serve models over HTTP and gRPC until SIGTERM or Ctrl-C. Every option is also a SERVE_ variable.",
)
