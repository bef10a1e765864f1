"""``lockstep bench all``."""

from math import isnan
from pathlib import Path

import click

from lockstep.cli import screen
from lockstep.cli.bench import GROUPS, tell
from lockstep.cli.options import json_option
from lockstep.engine.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_UNFINISHED, UsageError
from lockstep.engine.settings import nearest


@click.command("all", short_help="All groups in one go: one report, as text, JSON and a page.")
@click.option("--quick", is_flag=True, help="Each group once, with wider intervals.")
@click.option("--groups", metavar="A,B", help="These only; without it all that this machine can.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the report goes, or goes on. Without it: a new folder bench-N.",
)
@click.option("--runs", "runs_max", type=click.IntRange(1, 100), metavar="N",
              help="Of a group at most. Default: 6, with --quick 1.")  # fmt: skip
@click.option(
    "--stable",
    "stable_percent",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PERCENT",
    default=5.0,
    show_default=True,
    help="A group is done when its last three runs lie so close to their middle.",
)
@json_option
def command(
    quick: bool,
    groups: str | None,
    out: Path | None,
    runs_max: int | None,
    stable_percent: float,
    as_json: bool,
) -> int:
    """Measure group after group, each again until its runs agree, and write one report.

    \b
    Examples:
        lockstep bench all --quick
        lockstep bench all --groups shm,agents --out before
        lockstep bench compare before after

    The folder gets report.txt, report.json and report.html. Ctrl-C keeps every run that was made,
    and the same command with the same --out goes on. `lockstep bench setup` fetches the other
    runtimes first; what is not there is skipped and named.

    Exit codes: 0, 2 when nothing could be measured, 3 when a group could not, 130 interrupted.
    """
    from lockstep.bench import session, told

    if isnan(stable_percent):
        raise UsageError("--stable is nan, expected a percentage")
    wanted, absent = session.here(GROUPS) if groups is None else (_named(groups), {})
    asked = session.Asked(
        quick, runs_max or (session.RUNS_MAX_QUICK if quick else session.RUNS_MAX), stable_percent
    )
    begun = session.Session(out or session.next_folder(Path()), asked, tell)
    code = EXIT_OK
    try:
        begun.measure(wanted)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    code = code or (EXIT_UNFINISHED if begun.failed else EXIT_OK)
    begun.failed |= absent
    report = begun.report()
    folder = begun.folder
    if not report["groups"] and code != EXIT_INTERRUPTED:
        raise UsageError("; ".join(f"{group}: {why}" for group, why in begun.failed.items()))
    text = told.session_text(report)
    begun.write(report, text, told.session_page(report))
    screen.say("\n".join(map(screen.escape, text.splitlines())), err=as_json)
    if code == EXIT_INTERRUPTED:
        tell(f"interrupted; go on with --out {folder}")
    tell(f"wrote {folder / 'report.html'}")
    if as_json:
        screen.say_json({"folder": str(folder), **report})
    return code


def _named(groups: str) -> list[str]:
    """Names of groups, split at commas. Raises UsageError: one is none."""
    names = list(dict.fromkeys(name.strip() for name in groups.split(",") if name.strip()))
    for name in names:
        if name not in GROUPS:
            raise UsageError(f"--groups: there is no group {name!r}{nearest(name, GROUPS)}")
    if not names:
        raise UsageError(f"--groups: is empty, expected some of {', '.join(GROUPS)}")
    return names
