"""``lockstep sweep``."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.cli import screen
from lockstep.cli.kinds import FLEET
from lockstep.cli.options import input_option, json_option
from lockstep.cli.quiet import ChildrenQuiet
from lockstep.cli.sweeping import Sweeping

if TYPE_CHECKING:
    from lockstep.workers import Sweep

ROWS_SHOWN_MAX = 20
FAILED_SHOWN_MAX = 5
DIGEST_CHARS = 12  # Enough to see that two differ; the table has all.


@click.command("sweep")
@click.argument("fleet", type=FLEET)
@input_option
@click.option(
    "--seeds", default="", metavar="A..B", help="Seeds, such as 0..99 or 1,5,9.  [default: its own]"
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="K=V1,V2",
    help="A key of the fleet file and its values. May be repeated: every combination is run.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Runs at a time.  [default: what cores and memory allow]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the sweep; one that holds this sweep goes on.  [default: sweeps/<fleet>-<n>]",
)
@click.option(
    "--durability",
    type=click.Choice(["memory", "async", "sync"]),
    default="async",
    show_default=True,
    help="As of `lockstep run`.",
)
@click.option("--order", type=click.Choice(["strict", "arrival"]), help="As of `lockstep run`.")
@json_option
def command(
    fleet: Path,
    input_: Path | None,
    seeds: str,
    sets: tuple[str, ...],
    jobs: int | None,
    out: Path | None,
    durability: str,
    order: str | None,
    as_json: bool,
) -> int:
    """Run a fleet with each of many seeds and values, several runs at a time.

    \b
    Examples:
        lockstep sweep fleet.toml --input items.jsonl --seeds 0..99
        lockstep sweep fleet.toml --input items.jsonl --seeds 0..9 \\
            --set agents.solver.config.temperature=0.2,0.7 --set models.default.rows_max=4,16
        lockstep sweep fleet.toml --input items.jsonl --seeds 0..99 --out sweeps/fleet-1

    The folder gets every run (runs/00001, ...: as of `lockstep run`) and one table, results.csv and
    results.jsonl, in order of the grid; results.html has plots. All of it is checked before the
    first run starts; a run that fails is named, and the others go on.

    The same command with --out goes on with a sweep that was interrupted or killed: finished runs
    are not made again, half ones are resumed, failed ones are tried again. Digests and table come
    out the same for any --jobs, but for the columns behind `folder`: those are times.

    Ctrl-C starts nothing more and lets runs stop cleanly, a second one ends them at once.

    Exit codes: 0 done, 2 refused (nothing was started), 3 some runs failed, 130 interrupted.
    """
    from lockstep.workers.launch import ENVIRONMENT

    os.environ.update(ENVIRONMENT)  # Before numpy is loaded.
    from lockstep.workers import sweep

    with ChildrenQuiet(), Sweeping() as listening:
        found = sweep(
            fleet,
            input_,
            seeds=seeds,
            sets=sets,
            jobs=jobs or 0,
            out=out,
            order=order or "",
            durability=durability,
            listen=listening,
        )
    if found.rows:
        screen.say(_table(found), err=as_json)
    stream = sys.stderr if as_json else sys.stdout
    rows = _summary(found)
    screen.say(screen.pairs(rows, loud=("failed", "go on"), stream=stream), err=as_json)
    if as_json:
        screen.say_json(_object(found))
    return found.exit_code


def _table(found: "Sweep") -> str:
    """The first rows, as far as a person compares them."""
    names = found.columns
    head = [*names[: names.index("exit_code")], "digest", "tokens_out", "items_failed", "wall_s"]
    rows = [[_short(name, row[name]) for name in head] for row in found.rows[:ROWS_SHOWN_MAX]]
    left = len(found.rows) - len(rows)
    more = f"\n... {left} more in {found.folder / 'results.csv'}" if left else ""
    return screen.table(head, rows) + more + "\n"


def _short(name: str, value: Any) -> Any:
    return value[:DIGEST_CHARS] if name == "digest" and value else value


def _summary(found: "Sweep") -> list[tuple[str, object]]:
    failed = found.failed
    rows: list[tuple[str, object]] = [
        ("sweep", found.folder),
        ("runs", f"{len(found.rows)} of {found.runs}, {len(failed)} failed"),
        ("table", found.folder / "results.csv"),
        ("plots", found.folder / "results.html"),
    ]
    for row in failed[:FAILED_SHOWN_MAX]:
        why = row["reason"] or f"{row['items_failed']} items, {row['agents_failed']} agents failed"
        rows.append(("failed", f"run {row['run']} (seed {row['seed']}): {why}"))
    if len(failed) > FAILED_SHOWN_MAX:
        rows.append(("", f"{len(failed) - FAILED_SHOWN_MAX} more: `exit_code` in the table"))
    if found.interrupted:
        rows.append(("go on", f"the same command with --out {found.folder}"))
    return rows


def _object(found: "Sweep") -> dict[str, Any]:
    return {
        "sweep": str(found.folder),
        "state": "interrupted" if found.interrupted else "finished",
        "runs": found.runs,
        "done": len(found.rows),
        "failed": [row["run"] for row in found.failed],
        "csv": str(found.folder / "results.csv"),
        "jsonl": str(found.folder / "results.jsonl"),
        "html": str(found.folder / "results.html"),
        "exit_code": found.exit_code,
    }
