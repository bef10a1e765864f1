"""``lockstep cancel``: a person takes back a run, an item, a request or a source."""

import getpass
from pathlib import Path
from typing import Any

import click

from lockstep.cli import screen
from lockstep.cli.kinds import RUN
from lockstep.engine.errors import UsageError


@click.command("cancel")
@click.argument("run", type=RUN)
@click.option("--item", metavar="ID", help="Only the item with this id.")
@click.option("--ticket", type=click.IntRange(1), metavar="N",
              help="Only the request with this ticket (RESULT and journal name it).")  # fmt: skip
@click.option("--source", metavar="NAME", help="Only close a source: no more comes from it.")
@click.option("--json", "as_json", is_flag=True,
              help="The last line of standard output is one JSON object.")  # fmt: skip
def command(
    run: Path, item: str | None, ticket: int | None, source: str | None, as_json: bool
) -> int:
    """Cancel a run that goes on, or a part of it, at a defined place in its history.

    \b
    Examples:
        lockstep cancel runs/vote-1
        lockstep cancel runs/vote-1 --item q17
        lockstep cancel runs/chat-3 --source lines

    What is finished stays finished, and nothing that was cancelled ends as a success: an item's
    output line says that it was cancelled. The run records the cancel as an outside event, so
    `lockstep verify` repeats it at the same tag; such a run is not regenerative.

    Exit codes: 0 the run has taken it, 2 it has not: there is nothing of the kind to cancel.
    """
    request = _request(item, ticket, source)
    from lockstep.workers.outside.ask import ask

    found = ask(run, request)
    what = _what(item, ticket, source)
    rows = [
        ("cancelled", what),
        ("event", f"{found['event']}, takes effect at {found['tag']}"),
        ("run", run),
    ]
    screen.say(screen.pairs(rows), err=as_json)
    if as_json:
        screen.say_json({"run": str(run.resolve()), "event": found["event"], "tag": found["tag"]})
    return 0


def _request(item: str | None, ticket: int | None, source: str | None) -> dict[str, Any]:
    named = {"item": item, "ticket": ticket, "source": source}
    given = {key: value for key, value in named.items() if value is not None}
    if len(given) > 1:
        first, second = list(given)[:2]
        raise UsageError(f"--{first} and --{second}: give one of them")
    return {"do": "cancel", "by": user(), **given}


def user() -> str:
    """Who asks, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "a person"


def _what(item: str | None, ticket: int | None, source: str | None) -> str:
    if item is not None:
        return f"item {item}"
    if ticket is not None:
        return f"the request of ticket {ticket}"
    return f"source {source}" if source is not None else "the whole run"
