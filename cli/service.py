"""``lockstep service``: speaking to a service that runs. What is longer has a file of its own."""

import os
from pathlib import Path
from typing import Any

import click

from lockstep.cli import screen
from lockstep.cli.cancel import user
from lockstep.cli.options import json_option
from lockstep.cli.verbs import Verbs
from lockstep.engine.errors import EXIT_OK, UsageError


@click.group(
    "service",
    cls=Verbs,
    modules={name: f"lockstep.cli.{name}" for name in ("submit", "install", "uninstall", "unit")},
)
def command() -> None:
    """Speak to what `lockstep serve` started, or let a service manager start it.

    \b
    Examples:
        lockstep service status services/vote
        lockstep service submit services/vote '{"id": "q1", "text": "why?"}'
        lockstep service install fleet.toml --name vote --dry-run

    SERVICE is a state folder, or the name that a service was installed under.
    """


service_argument = click.argument("service", metavar="SERVICE")


def folder_of(service: str) -> Path:
    """The state folder of a service, by its path or the name that it was installed under."""
    home = os.environ.get("HOME", "")
    states = (os.environ.get("XDG_STATE_HOME") or f"{home}/.local/state",
              os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config",  # Before systemd 254.
              "/var/lib")  # fmt: skip
    places = [Path(service), *(Path(state, "lockstep", service) for state in states)]
    return next((place for place in places if (place / "service.json").exists()), places[0])


@command.command("status", short_help="Show how a service is.")
@service_argument
@json_option
def status(service: str, as_json: bool) -> int:
    """Show how a service is: its runs, what waits, whose it is.

    \b
    Examples:
        lockstep service status services/vote
        lockstep service status vote --json | jq .waiting

    Exit codes: 0, or 2 when it does not run.
    """
    found = _ask(service, {"do": "status"})
    clients = ", ".join(f"{name or 'before'} {n}" for name, n in found["clients"].items())
    rows = [
        ("state", found["state"]),
        ("pid", found["pid"]),
        ("fleet", found["fleet"]),
        ("run", found["run"] or "none yet"),
        ("items", f"{found['accepted']} accepted, {found['answered']} answered, since its start"),
        ("waiting", f"{found['waiting']} of {found['waiting_max']} ({clients or 'nobody'}; "
                    f"{found['client_waiting_max']} each)"),
    ]  # fmt: skip
    head = ("run", "state", "pid", "items", "waiting", "why")
    if found["http"] is not None:
        front = found["http"]
        rows.append(("http", f"{front['address']}, {front['state']}, pid {front['pid']}, "
                             f"restarted {front['restarts']} times"))  # fmt: skip
    table = screen.table(head, [[run[key] for key in head] for run in found["runs"]])
    screen.say(f"{screen.pairs(rows)}\n\n{table}", err=as_json)
    if as_json:
        screen.say_json(found)
    return EXIT_OK


@command.command("cancel", short_help="Cancel an item, or a request.")
@service_argument
@click.option("--item", metavar="ID", help="The item with this id.")
@click.option("--ticket", type=click.IntRange(1), metavar="N",
              help="The request with this ticket, of the run that takes new items.")  # fmt: skip
@json_option
def cancel(service: str, item: str | None, ticket: int | None, as_json: bool) -> int:
    """Cancel an item or a request, at a recorded place of its run's history.

    \b
    Examples:
        lockstep service cancel services/vote --item q17

    Exit codes: 0 it was taken, 2 there is nothing of the kind to cancel.
    """
    given = {"item": item, "ticket": ticket}
    what = {key: value for key, value in given.items() if value is not None}
    found = _ask(service, {"do": "cancel", "by": user(), **what})
    told = f"{found['event']}, takes effect at {found['tag']}"
    if found["event"] is None:
        told = "none: it was not handed in to its run yet, and is dropped"
    rows = [("event", told)]
    screen.say(screen.pairs(rows), err=as_json)
    if as_json:
        screen.say_json(found)
    return EXIT_OK


@command.command("drain", short_help="Take nothing new, finish, end.")
@service_argument
@json_option
def drain(service: str, as_json: bool) -> int:
    """Let a service take nothing new, finish what it has, and end with exit code 0.

    \b
    Examples:
        lockstep service drain services/vote

    It answers at once; `lockstep service status` shows how much waits.

    Exit codes: 0, 2 when it does not run.
    """
    found = _ask(service, {"do": "drain"})
    screen.say(screen.pairs([("waiting", found["waiting"])]), err=as_json)
    if as_json:
        screen.say_json(found)
    return EXIT_OK


@command.command("top", short_help="Show the agents of the run that takes new items.")
@service_argument
@json_option
@click.pass_context
def top(context: click.Context, service: str, as_json: bool) -> int:
    """Show the agents of the run that takes new items, as `lockstep top` does of any run.

    \b
    Examples:
        lockstep service top services/vote

    Exit codes: 0, 2 when no run takes items.
    """
    from lockstep.cli import top as verb
    from lockstep.workers.service.state import info_of

    run = info_of(folder_of(service)).get("run")
    if not run:
        raise UsageError(f"{service}: no run takes items yet")
    return int(context.invoke(verb.command, run=Path(run), as_json=as_json))


def _ask(service: str, command: dict[str, Any]) -> dict[str, Any]:
    from lockstep.workers.service.client import ask

    return ask(folder_of(service), command)
