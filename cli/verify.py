"""``lockstep verify``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.cli import screen
from lockstep.cli.listen import Listening
from lockstep.engine.errors import UsageError

if TYPE_CHECKING:
    from lockstep.workers.verification import Verification


@click.command("verify", short_help="Run a run again from its folder and compare.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=DIR",
    help="Where a model is now, if it moved. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True,
              help="The last line of standard output is one JSON object.")  # fmt: skip
def command(run: Path, models: tuple[str, ...], as_json: bool) -> int:
    """Run a run again from its folder and compare the histories, entry by entry.

    \b
    Examples:
        lockstep verify runs/vote-1
        lockstep verify runs/vote-1 --model default=/mnt/models/small

    The folder is only read. What differs between then and now (versions, CPU, provider) is told
    first: with such a difference the histories are not expected to be equal.

    Exit codes: 0 equal, 4 different, 2 the run or its model cannot be used.
    """
    if not run.is_dir():
        raise UsageError(f"{run}: {'not a folder' if run.exists() else 'no such folder'}")
    moved = dict(_pair(text) for text in models)
    from lockstep.workers import verification

    with Listening(show_folder=False) as listening:
        found = verification.verify(run, models=moved, listen=listening)
    if found.notes:
        screen.tell("environment", "it is not that of the run: bits may differ", "yellow")
    screen.say(screen.pairs(_rows(run, found)), err=as_json)
    if as_json:
        screen.say_json(_json(run, found))
    return found.exit_code


def _pair(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise UsageError(f"--model is {text!r}, expected NAME=DIR")
    return name, folder


def _rows(run: Path, found: "Verification") -> list[tuple[str, object]]:
    difference = found.difference
    if difference is not None:
        return [
            ("different", f"at {difference.tag}{_entry(difference.entry)}"),
            ("recorded", difference.left),
            ("again", difference.right),
            ("run", run),
        ]
    what = "every entry of the history came out again"
    if not found.whole:
        what = f"the recorded run had not ended; {what} up to there"
    return [
        ("equal" if found.whole else "equal so far", what),
        ("run", run),
        ("digest", found.recorded),
        ("work", "{steps} steps, {turns} turns, {wall_s} s".format(**found.again)),
        ("provider", found.again["provider"]),
    ]


def _entry(number: int) -> str:
    return f", entry {number} of the history" if number >= 0 else ""


def _json(run: Path, found: "Verification") -> dict[str, Any]:
    """Figures of the second execution, under the name and digest of the recorded run."""
    value = {
        **found.again,
        "run": str(run.resolve()),
        "digest": found.recorded,
        "digest_again": found.again["digest"],
        "exit_code": found.exit_code,
        "equal": found.equal,
        "whole": found.whole,
        "notes": list(found.notes),
    }
    if found.difference is not None:
        difference = found.difference
        value |= {"tag": difference.tag, "left": difference.left, "right": difference.right}
    return value
