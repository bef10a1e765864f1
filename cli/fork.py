"""``lockstep fork``."""

from pathlib import Path

import click

from lockstep.cli import ending
from lockstep.cli.kinds import RUN, changeable
from lockstep.cli.options import json_option, model_option, moved
from lockstep.engine.errors import UsageError


@click.command("fork")
@click.argument("run", type=RUN)
@click.option("--at", type=click.IntRange(1), required=True, metavar="STEP",
              help="The past is everything before this step.")  # fmt: skip
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="K=V",
    shell_complete=changeable,
    help="A key of the fleet file and its value from there on. May be repeated.",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the new run.  [default: runs/<fleet>-<n>]",
)
@model_option
@json_option
def command(
    run: Path,
    at: int,
    settings: tuple[str, ...],
    run_dir: Path | None,
    models: tuple[str, ...],
    as_json: bool,
) -> int:
    """Begin a new run with the past of another one, change something, and run it to its end.

    \b
    Examples:
        lockstep fork runs/vote-1 --at 120 --set seed=8
        lockstep fork runs/vote-1 --at 120 --set schedule.lookahead=2 --run-dir runs/ahead

    Everything before the step is shared, not copied; the other run is only read, and has to stay
    where it is. The change is recorded, so that the new run can be verified, resumed and forked
    as any other; `lockstep diff` shows where the two part.

    What may change: fleet.seed, turns_max, messages_max, steps_max; schedule.items_in_flight_max,
    fuel_per_step, lookahead, items_reordered_max, credit, item_steps_max. Of every other key it
    is said why not.

    Exit codes: as `lockstep run`.
    """
    folders, changes = moved(models), _changes(settings)
    from lockstep.workers import api

    return ending.execute(
        lambda listening: api.fork(
            run, at, changes, run_dir=run_dir, models=folders, listen=listening
        ),
        as_json=as_json,
    )


def _changes(settings: tuple[str, ...]) -> dict[str, str]:
    changes: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key.strip() and equals):
            raise UsageError(f"--set is {setting!r}, expected K=V, such as schedule.lookahead=2")
        if key.strip() in changes:
            raise UsageError(f"--set {setting}: {key.strip()} is set twice")
        changes[key.strip()] = value.strip()
    return changes
