"""`resnet-serve completion`: what a shell needs to complete commands, options and their values."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


def complete_policy(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """View policies that begin so."""
    from models.views import list_policies

    return [name for name in list_policies() if name.startswith(incomplete)]


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def COMMAND(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash:  eval "$(resnet-serve completion bash)"        in ~/.bashrc
    zsh:   eval "$(resnet-serve completion zsh)"         in ~/.zshrc, after compinit
    fish:  resnet-serve completion fish | source         in ~/.config/fish/config.fish
    """
    root = context.find_root()
    program = root.info_name or "resnet-serve"
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(root.command, {}, program, variable).source())
