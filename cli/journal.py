"""``lockstep journal ls|show|check|export``: a run's journal, read and nothing else."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.cli import screen
from lockstep.cli.kinds import RUN, agents
from lockstep.cli.options import json_option
from lockstep.cli.verbs import Verbs
from lockstep.engine.errors import EXIT_OK, EXIT_UNFINISHED, EXIT_USAGE

if TYPE_CHECKING:
    from lockstep.workers.journal_view import Check, View

EXITS = {"whole": EXIT_OK, "torn": EXIT_UNFINISHED, "damaged": EXIT_USAGE}
LINES_AT_ONCE = 200
_run = click.argument("run", type=RUN)


@click.group("journal", cls=Verbs)
def command() -> None:
    """The journal of a run: what happened, in logical order, hash-chained.

    \b
    Examples:
        lockstep journal check runs/vote-1
        lockstep journal show runs/vote-1 --from 12 --to 13.2 --agent solver.3
        lockstep journal export runs/vote-1 | jq 'select(.kind == "EFFECT") | .fuel'

    Nothing is changed, no model is needed, and the run may be running, stopped or torn.
    """


@command.command("ls", short_help="List the segments of a journal and what is in them.")
@_run
@json_option
def ls(run: Path, as_json: bool) -> int:
    """List the segments of a journal and what is in them.

    \b
    Examples:
        lockstep journal ls runs/vote-1
        lockstep journal ls runs/vote-1 --json | jq .records

    Exit codes: 0, or 2 when there is no journal or it is damaged.
    """
    from lockstep.workers import journal_view

    found = journal_view.view(run)
    screen.say(_listing(found), err=as_json)
    if as_json:
        screen.say_json(_json(found))
    return EXIT_OK


@command.command("check", short_help="Say whether a journal is whole, torn or damaged.")
@_run
@json_option
def check(run: Path, as_json: bool) -> int:
    """Read every byte of a journal: is it whole, torn at its end, or damaged, and where?

    \b
    Examples:
        lockstep journal check runs/vote-1
        lockstep journal check runs/vote-1 --json | jq -r .state

    Torn is what a crash leaves: the end of the last write is missing. Nothing that was
    acknowledged is lost by it, and `lockstep resume` cuts it. Damaged is everything else; then
    nothing goes on from this journal, and nothing is changed in it.

    Exit codes: 0 whole, 3 torn, 2 damaged, or there is no journal.
    """
    from lockstep.workers import journal_view

    found = journal_view.check(run)
    screen.say(screen.pairs(_verdict(found)), err=as_json)
    if as_json:
        value = {**_json(found.view), "state": found.state, "text": found.text}
        screen.say_json({**value, "exit_code": EXITS[found.state]})
    return EXITS[found.state]


@command.command("show", short_help="Show the records of a journal.")
@_run
@click.option("--from", "first", metavar="TAG", help="First tag: STEP or STEP.MICROSTEP.")
@click.option("--to", "last", metavar="TAG", help="Last tag; of a STEP, all that is in it.")
@click.option("--agent", metavar="A", shell_complete=agents,
              help="Only what this agent did and was given.")  # fmt: skip
@click.option("--kind", "kinds", multiple=True, metavar="K",
              help="Only records of this kind (EFFECT, SEND, ...). May be repeated.")  # fmt: skip
@json_option
def show(
    run: Path,
    first: str | None,
    last: str | None,
    agent: str | None,
    kinds: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show the records of a journal, one line each; what is inside a turn is indented.

    \b
    Examples:
        lockstep journal show runs/vote-1
        lockstep journal show runs/vote-1 --from 12 --to 13.2
        lockstep journal show runs/vote-1 --agent judge --kind EFFECT --kind TURN

    Long payloads are cut; `lockstep journal export` has all of them.

    Exit codes: 0, or 2 when there is no journal or it is damaged.
    """
    from lockstep.workers import selection

    wanted = selection.select(run, first, last, agent, kinds)
    count = _print((selection.text(value) for value in wanted), err=as_json)
    if as_json:
        screen.say_json({"run": str(run.resolve()), "records": count})
    return EXIT_OK


@command.command("export", short_help="Write every record of a journal as JSON Lines.")
@_run
@json_option
def export(run: Path, as_json: bool) -> int:
    """Write every record of a journal as JSON Lines, decoded.

    \b
    Examples:
        lockstep journal export runs/vote-1 > vote-1.jsonl
        lockstep journal export runs/vote-1 | jq 'select(.kind == "TICKET") | [.agent, .due]'

    Each line has `frame`, `tag` (null outside of history and of a step), `kind` and the fields of
    that kind; records inside a record (events of a TURN, records of an EFFECT, slots and answers
    of a STEP) are lists. A payload is JSON if it parses, else a string; bytes that are no text
    are `payload_base64`. docs/journal.md says what the kinds mean.

    Exit codes: 0, or 2 when there is no journal or it is damaged.
    """
    from lockstep.workers import export as exporting
    from lockstep.workers import journal_view

    lines = (json.dumps(value) for value in exporting.export(journal_view.frames(run)))
    count = _print(lines)
    if as_json:
        screen.say_json({"run": str(run.resolve()), "records": count})
    return EXIT_OK


def _print(lines: Iterable[str], *, err: bool = False) -> int:
    """Print as it is read, so that a journal of any size passes through; how many there were.

    It ends when nobody reads any more (``| head``).
    """
    count, source = 0, iter(lines)
    while (err or screen.heard()) and (batch := list(islice(source, LINES_AT_ONCE))):
        screen.say("\n".join(batch), err=err)
        count += len(batch)
    return count


def _listing(found: "View") -> str:
    head = ("segment", "bytes", "frames", "entries", "first", "last")
    rows = [[s.file, s.bytes, s.frames, s.entries, s.first, s.last] for s in found.segments]
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.records.items())
    above: list[tuple[str, object]] = [
        ("run", found.run),
        ("run id", "{run_id}, format {format}, flags {flags}".format(**found.header)),
        *_shares(found),
        ("records", kinds),
        *_torn(found),
    ]
    return f"{screen.pairs(above)}\n\n{screen.table(head, rows)}"


def _shares(found: "View") -> Iterator[tuple[str, object]]:
    if found.fork:
        yield "shares", "{entries} entries before step {at} of run {run_id}".format(**found.fork)


def _torn(found: "View") -> Iterator[tuple[str, object]]:
    if found.torn:
        yield ("torn", f"{found.torn_bytes} bytes at its end: {found.torn}")


def _verdict(found: "Check") -> list[tuple[str, object]]:
    view = found.view
    what = f"{view.frames} frames, {view.entries} entries of history in {len(view.segments)} file"
    return [
        (found.state, found.text),
        ("run", view.run),
        ("read", f"{what}{'s' * (len(view.segments) != 1)}"),
        *([("last", view.last)] if view.last else []),
    ]


def _json(found: "View") -> dict[str, Any]:
    return {
        "run": str(found.run.resolve()),
        **found.header,
        "segments": [vars(row) for row in found.segments],
        "frames": found.frames,
        "entries": found.entries,
        "records": found.records,
        "last": found.last,
        "digest": found.digest or None,
        "fork": found.fork,
        "ended": found.ended,
        "torn_bytes": found.torn_bytes,
        "running": found.running,
    }
