"""``lockstep service unit``."""

from typing import Any

import click

from lockstep.cli import install, screen
from lockstep.cli.options import json_option
from lockstep.engine.errors import EXIT_OK


@click.command("unit", short_help="Print the unit that install would write.")
@install.unit_options
@json_option
def command(as_json: bool, **asked: Any) -> int:
    """Print the unit that `lockstep service install` would write.

    \b
    Examples:
        lockstep service unit fleet.toml --name vote
        lockstep service unit fleet.toml > lockstep-vote.service

    Exit codes: 0, 2 the fleet cannot be served.
    """
    from lockstep.workers.service import unit as units

    made = install.unit(**asked)
    text = units.text(made)
    screen.say(text.rstrip("\n"), err=as_json)
    if as_json:
        screen.say_json({"file": made.file, "unit": text})
    return EXIT_OK
