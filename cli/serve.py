"""``lockstep serve``: a run that does not end when its input does."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lockstep.cli.kinds import FLEET, SECONDS
from lockstep.engine.errors import UsageError

if TYPE_CHECKING:
    from lockstep.workers.service.options import Http

SEED_MAX = 2**63 - 1


@click.command("serve")
@click.argument("fleet", type=FLEET)
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder of the service: its runs, its control socket.  [default: systemd's "
              "STATE_DIRECTORY, else services/<folder of the fleet file>]")  # fmt: skip
@click.option("--socket-dir", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder of the control socket, of mode 0700; it is made if it is not there.  "
              "[default: systemd's RUNTIME_DIRECTORY, else the state folder]")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, SEED_MAX), metavar="N",
              help="In place of the fleet's.")  # fmt: skip
@click.option("--durability", type=click.Choice(["async", "sync"]), default="async",
              show_default=True,
              help="What a crash may cost: async what the last second brought, when the machine "
              "dies; sync nothing.")  # fmt: skip
@click.option("--stop-s", type=SECONDS, default=20.0, show_default=True,
              help="When it is stopped, what is in flight has so long to finish.")  # fmt: skip
@click.option("--waiting-max", type=click.IntRange(1, 1_000_000), default=256, show_default=True,
              help="Unanswered items, in all; more are refused.")  # fmt: skip
@click.option("--client-max", type=click.IntRange(1, 1_000_000), default=64, show_default=True,
              help="Likewise, of one client.")  # fmt: skip
@click.option("--run-items-max", type=click.IntRange(0), default=20_000, show_default=True,
              help="After so many items a new run takes the next ones; 0: never.")  # fmt: skip
@click.option("--keep-runs", type=click.IntRange(0), default=10, show_default=True,
              help="Runs that have ended and are kept.")  # fmt: skip
@click.option("--keep-days", type=click.IntRange(0), default=0,
              help="Remove those that ended longer ago.")  # fmt: skip
@click.option("--keep-bytes", type=click.IntRange(0), default=0,
              help="Remove the oldest that go beyond this, together.")  # fmt: skip
@click.option("--http", metavar="HOST:PORT",
              help="Serve the fleet and its models to HTTP clients, too (extra `http`); port 0 is "
              "any.")  # fmt: skip
@click.option("--http-token-file", type=click.Path(path_type=Path), metavar="FILE",
              help="The token that HTTP clients must have; needed where others can reach "
              "it.")  # fmt: skip
@click.option("--http-host", "http_hosts", multiple=True, metavar="NAME",
              help="A name that HTTP clients may call this host by.")  # fmt: skip
def command(
    fleet: Path,
    state: Path | None,
    socket_dir: Path | None,
    seed: int | None,
    durability: str,
    stop_s: float,
    waiting_max: int,
    client_max: int,
    run_items_max: int,
    keep_runs: int,
    keep_days: int,
    keep_bytes: int,
    http: str | None,
    http_token_file: Path | None,
    http_hosts: tuple[str, ...],
) -> int:
    """Serve a fleet: items come by its control socket, answers go to who asked, and to a run.

    \b
    Examples:
        lockstep serve fleet.toml --state services/vote
        lockstep serve fleet.toml --http 127.0.0.1:8000
        lockstep service submit services/vote '{"id": "q1", "text": "why?"}'
        lockstep service drain services/vote

    Every item is recorded before it takes effect, and answered after its record: the runs in
    DIR/runs are verified, replayed and resumed as any others. Whatever was killed, started again
    it goes on: nothing accepted is lost, and an id that is asked for twice is one item.

    SIGTERM and Ctrl-C finish what is in flight within --stop-s and stop (a second one at once);
    SIGHUP gives new items to the fleet as its file is then. Under systemd it says READY, STATUS,
    WATCHDOG and STOPPING (`lockstep service install`).

    Exit codes: 0 ended by a person, 2 refused, 3 a run that cannot go on.
    """
    from lockstep.workers.launch import ENVIRONMENT

    os.environ.update(ENVIRONMENT)
    from lockstep.workers.service.daemon import serve
    from lockstep.workers.service.limits import Limits
    from lockstep.workers.service.options import Options
    from lockstep.workers.service.state import Keep

    state, socket_dir = _places(fleet, state, socket_dir)
    options = Options(
        fleet=fleet.absolute(),
        state=state,
        socket_dir=socket_dir,
        seed=seed,
        durability=durability,
        stop_s=stop_s,
        run_items_max=run_items_max,
        limits=Limits(waiting_max, min(client_max, waiting_max)),
        keep=Keep(keep_runs, keep_days, keep_bytes),
        http=_http(http, http_token_file, http_hosts),
    )
    return serve(options, os.environ)


def _http(address: str | None, token: Path | None, hosts: tuple[str, ...]) -> "Http | None":
    """How HTTP clients are served; None: not at all."""
    from lockstep.workers.service.front import http_of

    if address is not None:
        return http_of(address, token, hosts)
    if token is not None or hosts:
        raise UsageError("--http-token-file and --http-host need --http")
    return None


def _places(fleet: Path, state: Path | None, socket_dir: Path | None) -> tuple[Path, Path | None]:
    """Folders of the state and of the socket: as given, or as systemd gives them."""
    made = _given("STATE_DIRECTORY") or Path("services", fleet.absolute().parent.name)
    sockets = socket_dir or (None if state is not None else _given("RUNTIME_DIRECTORY"))
    return (state or made).absolute(), sockets.absolute() if sockets is not None else None


def _given(variable: str) -> Path | None:
    """The folder that a service manager made for us."""
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") and ":" not in value else None
