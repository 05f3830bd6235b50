"""What the commands print: names, labels and paths as they are, whatever characters they hold."""

from rich.console import Console
from rich.style import StyleType


def make_console(*, stderr: bool = False) -> Console:
    """A console that takes no bracket for a style and no `:cat:` for a picture."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def say(console: Console, sentence: str, style: StyleType | None = None) -> None:
    """One line, however long: a path that is broken in two cannot be copied, nor found by a script."""
    console.print(sentence, style=style, soft_wrap=True)
