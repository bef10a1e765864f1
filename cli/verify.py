"""``lockstep verify``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.cli import screen
from lockstep.cli.kinds import RUN
from lockstep.cli.listen import Listening
from lockstep.cli.options import json_option, model_option, moved

if TYPE_CHECKING:
    from lockstep.workers.verification import Verification


@click.command("verify")
@click.argument("run", type=RUN)
@model_option
@json_option
def command(run: Path, models: tuple[str, ...], as_json: bool) -> int:
    """Run a run again from its folder and compare the histories, entry by entry.

    \b
    Examples:
        lockstep verify runs/vote-1
        lockstep verify runs/vote-1 --model default=/mnt/models/small

    The folder is only read. What differs between then and now (machine type, provider, versions)
    is told before anything is executed, and with it which equality that leaves: every bit where
    nothing differs, at best the same texts on another type of CPU. At the first difference it
    stops and shows both sides.

    Exit codes: 0 equal, 4 different, 2 the run or its model cannot be used, 3 stopped.
    """
    folders = moved(models)
    from lockstep.workers import verification

    with Listening(show_folder=False) as listening:
        found = verification.verify(run, models=folders, listen=listening)
    screen.say(screen.pairs(_rows(run, found)), err=as_json)
    if as_json:
        screen.say_json(_json(run, found))
    return found.exit_code


def _rows(run: Path, found: "Verification") -> list[tuple[str, object]]:
    difference = found.difference
    if difference is not None:
        return [
            ("different", f"at {difference.tag}{_entry(difference.entry)}"),
            *[("before" if n == 0 else "", line) for n, line in enumerate(difference.before)],
            ("recorded", difference.left),
            ("again", difference.right),
            *_texts(found),
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


def _texts(found: "Verification") -> list[tuple[str, object]]:
    """What is left to say where the same bits were not to be expected."""
    if found.equal_text is None or found.expectation.leaves == "bits":
        return []
    what = "equal" if found.equal_text else "different, too"
    return [("digest_text", f"{what}; expected was {found.expectation.text}")]


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
        "equal_text": found.equal_text,
        "expected": found.expectation.leaves,
        "notes": list(found.notes),
    }
    if found.difference is not None:
        difference = found.difference
        value |= {
            "tag": difference.tag,
            "left": difference.left,
            "right": difference.right,
            "entry": difference.entry,
            "before": list(difference.before),
        }
    return value
