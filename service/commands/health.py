"""`resnet-serve health`: is the service on this machine ready? For probes, as service/health.py is."""

import click

from service import health
from service.settings import BadSettings


@click.command("health")
def COMMAND() -> None:
    """Exit 0 if the service that runs here with the same SERVE_ settings is ready, 1 if not."""
    try:
        click.echo(health.check())
    except (OSError, BadSettings, health.NotReady) as err:
        raise click.ClickException(str(err)) from err
