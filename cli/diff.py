"""``lockstep diff``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lockstep.cli import screen
from lockstep.cli.kinds import RUN
from lockstep.cli.options import json_option

if TYPE_CHECKING:
    from lockstep.workers.comparison import Comparison

KEYS_SHOWN = 8  # Of what the runs are; the rest is counted.


@click.command("diff")
@click.argument("run_a", type=RUN)
@click.argument("run_b", type=RUN)
@json_option
def command(run_a: Path, run_b: Path, as_json: bool) -> int:
    """Show what two runs are, the first tag at which they differ, and what differs there.

    \b
    Examples:
        lockstep diff runs/vote-1 runs/vote-2
        lockstep diff runs/vote-1 runs/vote-2 --json | jq -r .tag

    Nothing is executed. What the runs are is compared first (seed, fleet, modules, models), then
    what happened in them, in logical order. A run that goes on or was stopped is compared as far
    as its record goes.

    Exit codes: 0 equal, 4 different, 2 one of them cannot be read.
    """
    from lockstep.workers.comparison import diff

    found = diff(run_a, run_b)
    screen.say(screen.pairs(_rows(found)), err=as_json)
    if as_json:
        screen.say_json(found.as_json())
    return found.exit_code


def _rows(found: "Comparison") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [*_is(found), *_did(found)]
    rows += [("left", f"{found.left.path} {found.left.digest[:16]}"),
             ("right", f"{found.right.path} {found.right.digest[:16]}")]  # fmt: skip
    return rows


def _is(found: "Comparison") -> list[tuple[str, object]]:
    lines = list(found.identity[:KEYS_SHOWN])
    if len(found.identity) > KEYS_SHOWN:
        lines.append(f"and {len(found.identity) - KEYS_SHOWN} more keys")
    return [("other runs" if n == 0 else "", line) for n, line in enumerate(lines)]


def _did(found: "Comparison") -> list[tuple[str, object]]:
    difference = found.difference
    if difference is None:
        what = f"{len(found.left.history)} entries of history"
        return [("equal" if found.equal else "same history", what)]
    return [
        ("different", f"at {difference.tag}, entry {difference.entry} of the history"),
        *[("before" if n == 0 else "", line) for n, line in enumerate(difference.before)],
        ("left has", difference.left),
        ("right has", difference.right),
    ]
