"""The command line, `resnet-serve` or `python -m service`."""

import click

from models.catalog import find_entries
from service import commands
from service.version import NAME, find_version


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(find_version(), prog_name=NAME)
def main() -> None:
    """Serve ResNet image classifiers: one picture in, one answer out."""


for command in find_entries(commands, "COMMAND", click.Command):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name=NAME)
