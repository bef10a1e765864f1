"""``lockstep resume``."""

from pathlib import Path

import click

from lockstep.cli import ending
from lockstep.cli.kinds import RUN
from lockstep.cli.options import json_option, model_option, moved


@click.command("resume")
@click.argument("run", type=RUN)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A copy of the run's output file.",
)
@model_option
@json_option
def command(run: Path, output: Path | None, models: tuple[str, ...], as_json: bool) -> int:
    """Finish a run that was interrupted, stopped by an accident, or lost its processes.

    \b
    Examples:
        lockstep resume runs/vote-1
        lockstep resume runs/vote-1 --json | jq -r .digest

    Everything is brought back from the journal, and compared with it on the way: the agents take
    their turns again, and the run goes on where the record stops. Its digest is that of a run that
    nothing happened to. What a crash left half written at the end of the journal is cut and
    counted.

    A run that has come to its end is not touched, a damaged journal neither. The copy of the output
    that `run --output` made is as old as the interruption: ask for it again here.

    Exit codes: as `lockstep run`; 4 what is executed again is not what is recorded. Of a run that
    has come to its end: its own.
    """
    folders = moved(models)
    from lockstep.workers import api

    return ending.execute(
        lambda listening: api.resume(run, output=output, models=folders, listen=listening),
        as_json=as_json,
        output=str(output or ""),
        folder=str(run),
    )
