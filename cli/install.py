"""``lockstep service install``; what `unit` prints and `uninstall` removes has its options here."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.cli import screen
from lockstep.cli.kinds import FLEET, SECONDS
from lockstep.cli.options import json_option
from lockstep.engine.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from lockstep.workers.prepare import Prepared
    from lockstep.workers.service.unit import Unit

Verb = Callable[..., Any]
user_option = click.option("--user", "for_user", is_flag=True,
                           help="Of your own service manager, not of the system's.")  # fmt: skip
root_option = click.option("--root", type=click.Path(path_type=Path), default=Path("/"),
                           metavar="DIR", help="Of another file system: an image.")  # fmt: skip
dry_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


def unit_options(verb: Verb) -> Verb:
    """What a unit is made from."""
    for option in reversed((
        click.argument("fleet", type=FLEET),
        click.argument("arguments", nargs=-1, type=click.UNPROCESSED),
        click.option("--name", metavar="NAME", help="Of the service.  [default: the fleet's]"),
        user_option,
        click.option("--as", "run_as", default="lockstep", show_default=True, metavar="USER",
                     help="Whom a system's service runs as."),
        click.option("--memory-max", default="80%", show_default=True, metavar="BYTES",
                     help="With K, M, G or T; or a percentage, or infinity. What goes beyond it is "
                     "ended."),
        click.option("--stop-s", type=SECONDS, default=20.0, show_default=True,
                     help="As `lockstep serve` has it."),
    )):  # fmt: skip
        verb = option(verb)
    return verb


@click.command("install", short_help="Write a unit for systemd.")
@unit_options
@root_option
@dry_option
@json_option
def command(root: Path, dry_run: bool, as_json: bool, **asked: Any) -> int:
    """Write a hardened unit for systemd, and say what was written. Nothing is started.

    \b
    Examples:
        lockstep service install fleet.toml --name vote --dry-run
        sudo lockstep service install /srv/vote/fleet.toml -- --keep-runs 30
        lockstep service install --user fleet.toml

    What follows -- is given to `lockstep serve`. Again: only what differs is written. A file that
    Lockstep did not write, or that was changed since, is left alone and nothing is written.

    Exit codes: 0, 2 refused.
    """
    from lockstep.workers.service import installed

    made = unit(**asked)
    done = installed.install(installed.files_of(made, root, config(made.for_user)), dry_run)
    show(done, as_json)
    if not dry_run:
        for line in _next(made):
            screen.tell("next", line)
    return EXIT_OK


def unit(
    fleet: Path,
    arguments: tuple[str, ...],
    name: str | None,
    for_user: bool,
    run_as: str,
    memory_max: str,
    stop_s: float,
) -> "Unit":
    """The unit of a fleet, which is read.

    Raises:
        UsageError: it cannot be served.
    """
    from lockstep.workers.prepare import prepare
    from lockstep.workers.service.unit import unit_of

    path = fleet.absolute()
    http, token_file = _http(path, arguments)
    if token_file is not None:  # The unit has no working folder; the last one counts.
        arguments = (*arguments, "--http-token-file", str(token_file))
    prepared = prepare(path, None, None, serves=True, calls=http)
    needed = _needed(path, prepared) + ([] if token_file is None else [str(token_file)])
    program = (sys.executable, "-P", "-m", "lockstep.cli.main")
    found = unit_of(name or prepared.fleet.name, program, path, prepared.fleet, needed, for_user)
    return replace(
        found,
        arguments=arguments,
        network=found.network or http,
        run_as=run_as,
        memory_max=memory_max,
        stop_s=stop_s,
    )


def _needed(fleet: Path, prepared: "Prepared") -> list[str]:
    """Whatever is read or executed, where it is named and where it lies."""
    from lockstep.workers.prepare import module_paths

    named = [str(fleet), sys.executable, __file__]
    named += [model.path for model in prepared.fleet.models]
    named += map(str, module_paths(fleet, prepared.fleet))
    named += [command.path for command in prepared.commands]
    return list(dict.fromkeys([*named, *map(os.path.realpath, named)]))


def _http(fleet: Path, arguments: tuple[str, ...]) -> tuple[bool, Path | None]:
    """Whether HTTP clients are served, and the token file, absolute, as `lockstep serve` has it.

    Raises:
        UsageError: it would refuse what it is given.
    """
    from lockstep.cli.serve import command as serve
    from lockstep.workers.service.front import http_of

    given = serve.make_context("serve", [str(fleet), *arguments]).params
    address, file = given["http"], given["http_token_file"]
    if address is None:
        return False, None
    http_of(address, file, given["http_hosts"])
    return True, file.absolute() if file is not None else None


def config(for_user: bool = True) -> Path:
    """The person's folder of configuration, which only a unit of theirs goes to.

    Raises:
        UsageError: nobody says where it is.
    """
    home = os.environ.get("HOME", "")
    # A relative one counts as none.
    for found in (Path(os.environ.get("XDG_CONFIG_HOME", "")), Path(home, ".config")):
        if found.is_absolute() or not for_user:
            return found
    raise UsageError("HOME is not set, so where units of yours belong is not known")


def show(done: "list[tuple[Path, str]]", as_json: bool) -> None:
    """What became of each file."""
    screen.say(screen.pairs([(state, path) for path, state in done]), err=as_json)
    if as_json:
        screen.say_json({"files": [{"path": str(path), "state": s} for path, s in done]})


def _next(made: "Unit") -> list[str]:
    if made.for_user:
        return [
            f"systemctl --user daemon-reload && systemctl --user enable --now {made.file}",
            "loginctl enable-linger, or it ends when you log out",
        ]
    return [
        f"systemd-sysusers && systemctl daemon-reload && systemctl enable --now {made.file}",
        f"the user {made.run_as} has to be able to read the fleet, its modules and its models",
    ]
