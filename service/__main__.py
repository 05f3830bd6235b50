"""The command line, `resnet-serve` or `python -m service`."""

import click

from models.catalog import find_entries
from service import commands


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="resnet-serve", prog_name="resnet-serve")
def main() -> None:
    """Serve ResNet image classifiers: one picture in, one answer out."""


for command in find_entries(commands, "COMMAND", click.Command):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="resnet-serve")
