"""Options that several verbs have."""

from collections.abc import Sequence
from pathlib import Path

import click

from lockstep.engine.errors import UsageError

json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The last line of standard output is one JSON object.",
)
input_option = click.option(
    "--input",
    "input_",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON Lines, one item each.",
)
model_option = click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=DIR",
    help="Where a model is now, if it moved. May be repeated.",
)


def moved(models: Sequence[str]) -> dict[str, str]:
    """Folders by name, as `model_option` takes them.

    Raises:
        UsageError: one is not NAME=DIR.
    """
    return dict(_pair(text) for text in models)


def _pair(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise UsageError(f"--model is {text!r}, expected NAME=DIR")
    return name, folder
