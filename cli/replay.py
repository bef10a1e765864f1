"""``lockstep replay``."""

from pathlib import Path
from typing import Any

import click

from lockstep.cli import screen
from lockstep.cli.kinds import RUN, agents
from lockstep.cli.listen import Listening
from lockstep.cli.options import json_option


@click.command("replay")
@click.argument("run", type=RUN)
@click.option("--agent", metavar="A", shell_complete=agents,
              help="Execute this agent only.")  # fmt: skip
@click.option("--until", metavar="TAG",
              help="Stop before this tag: STEP or STEP.MICROSTEP.")  # fmt: skip
@click.option("--trace", is_flag=True, help="Print each turn: its events and its effects.")
@json_option
def command(run: Path, agent: str | None, until: str | None, trace: bool, as_json: bool) -> int:
    """Execute a run's agents again from its journal, without the model, and compare each turn.

    \b
    Examples:
        lockstep replay runs/vote-1
        lockstep replay runs/vote-1 --agent solver.3 --until 120.2 --trace

    What the model, tools and sources said comes from the record; what the agents make of it must
    come out as it is recorded, instruction by instruction. Neither a model nor a GPU is needed,
    the folder is only read, and nothing is left behind.

    Exit codes: 0 every turn came out again, 4 one did not (it is named), 2 refused, 3 stopped.
    """
    from lockstep.workers import api

    with Listening(show_folder=False, trace_err=as_json) as listening:
        found = api.replay(run, agent=agent, until=until, trace=trace, listen=listening)
    screen.say(screen.pairs(_rows(found.summary, agent, until)), err=as_json)
    if as_json:
        screen.say_json({**found.summary, "notes": listening.notes})
    return found.exit_code


def _rows(found: dict[str, Any], agent: str | None, until: str | None) -> list[tuple[str, object]]:
    what = "every turn" if agent is None else f"every turn of {agent}"
    where = f" before {until}" if until is not None else ""
    return [
        ("equal", f"{what}{where} came out as it is recorded, without the model"),
        ("run", found["run"]),
        ("digest", found["digest"]),
        ("work", "{steps} steps, {turns} turns, {messages} messages, {wall_s} s".format(**found)),
    ]
