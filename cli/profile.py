"""``lockstep profile``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lockstep.cli import ending, profiles, run, screen
from lockstep.cli.kinds import FLEET_OR_RUN
from lockstep.cli.listen import Listening
from lockstep.cli.options import json_option
from lockstep.cli.progress import Making
from lockstep.engine.errors import EXIT_OK, LockstepError, RunStopped

if TYPE_CHECKING:
    from lockstep.workers import Run

Object = dict[str, Any]


@click.command(
    "profile",
    context_settings={"allow_extra_args": True},  # As of `run`.
)
@click.pass_context
@click.argument("fleet", type=FLEET_OR_RUN, metavar="FLEET|RUN")
@click.option("--nodes", is_flag=True, help="Time the nodes of the models' graphs, too.")
@click.option("--no-report", is_flag=True, help="Do not draw report.html.")
@json_option
def command(
    context: click.Context,
    /,
    fleet: Path,
    nodes: bool,
    no_report: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Run a fleet, recording what every process does and when, and show where the time went.

    \b
    Examples:
        lockstep profile fleet.toml --input items.jsonl
        lockstep profile fleet.toml --input items.jsonl --json | jq .profile.phases
        lockstep profile runs/vote-3

    It is a run as any other: the same digest, and `verify`, `resume` and `top` take it. In its
    folder there are, besides, profile/ (what was recorded), profile.json (figures), trace.json.gz
    (for https://ui.perfetto.dev, which opens it without sending it anywhere) and report.html
    (pictures). With the folder of a profiled run, the three files are made again. Ctrl-C stops the
    run, and the profile is of what was until then.

    Exit codes: those of `lockstep run`; with a RUN 0, or 2 when it was not profiled.
    """
    if fleet.is_dir():
        _nothing_else(context)
        return _again(fleet, as_json, not no_report)
    run.nothing_extra(context, options["input_"])
    made: Object = {}
    input_, order = options.pop("input_"), options.pop("order") or ""
    asked = {**options, "input": input_, "order": order, "profile": "nodes" if nodes else "spans"}
    try:
        return ending.execute(
            lambda listening: _recorded(fleet, asked, listening, made, not no_report),
            as_json=as_json,
            output=str(options["output"] or ""),
        )
    finally:
        if made:
            screen.say(f"\n{profiles.text(made)}", err=as_json)


def _recorded(
    fleet: Path, options: Object, listening: Listening, made: Object, report: bool
) -> "Run":
    """Run a fleet, and make the profile of what was, however it ended.

    Args:
        fleet: The fleet file.
        options: What else `api.run` takes.
        listening: Hears what comes.
        made: Gets the profile; it stays empty when none can be made.
        report: Whether to draw report.html.

    Raises:
        LockstepError, KeyboardInterrupt: as `api.run`.
    """
    from lockstep.workers import api
    from lockstep.workers.launch import Interrupted

    try:
        done = api.run(fleet, **options, listen=listening)
    except (Interrupted, RunStopped) as error:
        _add(made, listening, getattr(error, "summary", None), report)
        raise
    except KeyboardInterrupt:
        _missed(listening)
        raise
    _add(made, listening, done.summary, report)
    return done


def _again(folder: Path, as_json: bool, report: bool) -> int:
    """Make the files of a run that is there."""
    made = _made(folder, report)
    screen.say(profiles.text(made), err=as_json)
    if as_json:
        screen.say_json({"run": str(folder), "profile": profiles.brief(made)})
    return EXIT_OK


def _add(made: Object, listening: Listening, summary: Object | None, report: bool) -> None:
    """Make the profile of what was; a run is none the worse for one that cannot be made."""
    if not listening.folder:
        return
    try:
        made.update(_made(Path(listening.folder), report))
    except LockstepError as error:
        listening("note", f"no profile: {error}")
    except KeyboardInterrupt:
        _missed(listening)
    if summary is not None:
        summary["profile"] = profiles.brief(made) if made else None


def _missed(listening: Listening) -> None:
    """A person did not wait for the profile."""
    if listening.folder:
        listening("note", f"no profile: `lockstep profile {listening.folder}` makes it")


def _made(folder: Path, report: bool) -> Object:
    """The files in a run folder, made with a line that says how far they are."""
    from lockstep.bench import machine
    from lockstep.workers.profile.making import make

    drawn = Making()
    try:
        return make(folder, machine.describe(), drawn, report)
    finally:
        drawn.clear()


def _nothing_else(context: click.Context) -> None:
    """Options are of a new run; a run that was is only looked at."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in ("fleet", "as_json", "no_report")
        and context.get_parameter_source(parameter.name or "") == ParameterSource.COMMANDLINE
    ]
    if given or context.args:
        what = ", ".join([*given, *context.args])
        raise click.UsageError(f"{what}: not for a run that was recorded already", context)


# Whatever `run` takes.
command.params[1:1] = [p for p in run.command.params if p.name not in ("fleet", "as_json")]
