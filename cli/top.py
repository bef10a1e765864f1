"""``lockstep top``: a look at a run, from outside and without a lock."""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.cli import live, screen
from lockstep.cli.kinds import RUN, RUNS, runs_in
from lockstep.engine.errors import UsageError

if TYPE_CHECKING:
    from lockstep.shm import EngineStatus, Snapshot

# By number, as on the board.
STATES = ("starting", "running", "idle", "gone", "recovering")
BOARD_NAME = "/lockstep-"
FILE_BYTES_MAX = 64 << 20
PACE_S = 2.0  # An engine without rows that wrote nothing for so long makes no tokens.
# Of an agent, and of nobody's knowledge where there is no board.
FIGURES = ("step", "turns", "fuel", "mailbox", "requests", "stall_s")
USAGE = ("cpu_s", "memory_bytes")  # Of a process: CPU time so far, resident memory.
NO_SUMMARY = "without a summary (the supervisor was killed)"

Table = dict[str, Any]


@click.command("top")
@click.argument("run", type=RUN, required=False)
@click.option("--once", is_flag=True, help="One look, also on a terminal.")
@click.option("--json", "as_json", is_flag=True,
              help="One look; the last line of standard output is one JSON object.")  # fmt: skip
def command(run: Path | None, once: bool, as_json: bool) -> int:
    """Show the agents of a run and what they do. The run does not notice.

    Without RUN it is one of those in runs/: of those that go on the one that began last, else of
    all.

    On a terminal the table is redrawn every second until the run has ended or you press q. Keys
    sort it, filter it, scroll and pause: ? shows them. `mem` is resident memory, of which agents
    share what they were forked with.

    \b
    Examples:
        lockstep top
        lockstep top runs/vote-1
        lockstep top runs/vote-1 --json | jq '.agents[] | select(.state == "running")'

    The first line says whether the run is alive, or how it ended. A run that has ended is shown
    as it ended, without processes; a figure that nobody knows is "-", in JSON null.

    Exit codes: 0, or 2 when there is no run.
    """
    if run is None:
        run = newest(Path(RUNS))
        screen.tell("run", run)
    if not once and not as_json and screen.terminal(sys.stdout):
        found = live.show(partial(look, run))
    else:
        found = look(run)
    screen.say(_text(found), err=as_json)
    if as_json:
        screen.say_json({"run": str(run), **found})
    return 0


def newest(folder: Path) -> Path:
    """Of the runs in a folder the one that is most likely meant.

    Raises:
        UsageError: there is none.
    """
    from lockstep.workers import folder as folders

    def begun(run: Path) -> tuple[bool, int]:
        try:  # A supervisor writes into its lock once, when it begins.
            began_ns = (run / folders.LOCK).stat().st_mtime_ns
        except OSError:
            began_ns = 0
        return folders.holder_of(run) is not None, began_ns

    there = runs_in(folder)
    if not there:
        raise UsageError(f"no run in {folder}/ of this folder: lockstep top RUN shows any other")
    return max(there, key=begun)


def look(run: Path) -> Table:
    """A run as it is now.

    Raises:
        UsageError: there is no run in the folder.
    """
    if not run.exists():
        raise UsageError(f"{run}: no such folder")
    from lockstep.workers import folder as folders

    if not (run / folders.LOCK).is_file():
        raise UsageError(f"{run}: no run in this folder")
    holder = folders.holder_of(run)
    # A run writes its summary, takes its board away and lets go of its lock, in this order.
    summary = _read_json(run / folders.SUMMARY) if holder is None else None
    board = _from_board(run / folders.BOARD, holder) if summary is None else None
    if board is not None:
        return board
    return _from_files(run, holder, summary or _read_json(run / folders.SUMMARY))


def _from_board(path: Path, holder: int | None) -> Table | None:
    name = (_read_json(path) or {}).get("name")
    if not isinstance(name, str) or not name.startswith(BOARD_NAME) or "\0" in name:
        return None
    from lockstep.workers.launch import ENVIRONMENT

    os.environ.update(ENVIRONMENT)
    from lockstep import shm

    try:
        board = shm.BoardReader.attach(name)
    except (OSError, ValueError, shm.BoardRefused):
        return None
    try:
        snapshot = board.snapshot()
    finally:
        board.close()
    return _live(snapshot, holder)


def _live(snapshot: "Snapshot", holder: int | None) -> Table:
    # The board of a supervisor that was killed still shows its processes; the lock knows better.
    alive = holder is not None
    supervisor = snapshot.supervisor.pid if alive else 0
    engine = snapshot.engine
    return {
        **_state_of(None, alive),
        "agents": [
            {
                "name": agent.name,
                "index": agent.index,
                **_process(agent.pid, supervisor),
                "state": _state(agent.state) if alive else "gone",
                "step": agent.step,
                "turns": agent.turns,
                "fuel": agent.fuel,
                "mailbox": agent.mailbox,
                "requests": agent.requests,
                "stall_s": round(agent.stall_us / 1e6, 3),
            }
            for agent in snapshot.agents
        ],
        "inference": {
            **_process(engine.pid, supervisor),
            "step": engine.step if alive or engine.pid else None,
            "rows": engine.rows if alive else None,
            "tickets_waiting": engine.tickets_waiting if alive else None,
            "tokens": engine.tokens if alive or engine.pid else None,
            "tokens_per_s": _pace(engine) if alive else None,
        },
        "supervisor": _process(supervisor),
    }


def _pace(engine: "EngineStatus") -> int:
    rests = engine.rows == 0 and time.monotonic() - engine.at_us / 1e6 > PACE_S
    return 0 if rests or not engine.pid else engine.tokens_per_s


def _process(pid: int, parent: int | None = None) -> Table:
    """The pid and what that process uses, if it lives and is a child of ``parent``.

    Numbers are used again: another process of this one is nobody's.

    Args:
        pid: As the board has it; 0: there is none.
        parent: Pid of the supervisor, 0 for a dead one; None: of the supervisor itself.
    """
    import psutil

    nobody = dict.fromkeys(("pid", *USAGE))
    if not pid or parent == 0:
        return nobody
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if parent is not None and process.ppid() != parent:
                return nobody
            if process.status() == psutil.STATUS_ZOMBIE:
                return nobody
            times, memory = process.cpu_times(), process.memory_info()
    except psutil.Error:
        return nobody
    return {"pid": pid, "cpu_s": round(times.user + times.system, 2), "memory_bytes": memory.rss}


def _from_files(run: Path, holder: int | None, summary: Table | None) -> Table:
    """A run without a board: it has ended, was killed, or is still loading."""
    from lockstep.workers import folder as folders

    alive = holder is not None and summary is None
    figures = summary or {}
    agents = _ended(figures.get("agents"))
    if not agents:
        agents = _named(run / folders.FLEET, "starting" if alive else "gone")
    unknown = dict.fromkeys(("pid", *USAGE, "rows", "tickets_waiting", "tokens_per_s"))
    made = {"step": figures.get("steps"), "tokens": figures.get("tokens_out")}
    return {
        **_state_of(summary, alive),
        "agents": agents,
        "inference": {**unknown, **made},
        "supervisor": _process(holder or 0 if alive else 0),
    }


def _state_of(summary: Table | None, alive: bool) -> Table:
    """``state`` ("running", "finished", "stopped" or "ended": nobody knows how) and ``reason``."""
    if alive:
        return {"state": "running", "reason": ""}
    if summary is None or not summary.get("state"):
        return {"state": "ended", "reason": NO_SUMMARY}
    return {"state": str(summary["state"]), "reason": str(summary.get("reason") or "")}


def _ended(agents: object) -> list[Table]:
    """The agents of a summary, as far as it is one: a person may have edited it."""
    rows = agents if isinstance(agents, list) else []
    return [
        {
            "name": row.get("name"),
            "index": row.get("index"),
            **dict.fromkeys(("pid", *USAGE)),
            "state": "gone",
            **{figure: row.get(figure) for figure in FIGURES},
        }
        for row in rows
        if isinstance(row, dict)
    ]


def _named(fleet: Path, state: str) -> list[Table]:
    from lockstep.engine.fleet_file import parse

    try:
        agents = parse(fleet.read_bytes(), str(fleet)).agents
    except (OSError, UsageError):
        return []
    unknown = dict.fromkeys(("pid", *USAGE, *FIGURES))
    return [{"name": a.name, "index": a.index, **unknown, "state": state} for a in agents]


def _read_json(path: Path) -> Table | None:
    """A small JSON object; None if there is none, or it is something else."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read(FILE_BYTES_MAX))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _state(number: int) -> str:
    return STATES[number] if number < len(STATES) else str(number)


def _text(found: Table) -> str:
    engine, supervisor = found["inference"], found["supervisor"]["pid"]
    head = ("agent", "index", "pid", "state", *FIGURES, *USAGE)
    keys = ("name", *head[1:])
    rows = [[agent.get(key) for key in keys] for agent in found["agents"]]
    known = {key: "-" if value is None else value for key, value in engine.items()}
    state = screen.one_line(found["state"])
    between = " " if found["state"] == "ended" else ": "
    reason = f"{between}{screen.one_line(found['reason'])}" if found["reason"] else ""
    return "\n".join(
        (
            f"state       {state}{reason}",
            f"supervisor  {f'pid {supervisor}' if supervisor else 'no process'}",
            f"inference   {'pid {pid}'.format(**engine) if engine['pid'] else 'no process'}, "
            "step {step}, {rows} rows, {tickets_waiting} tickets waiting, {tokens} tokens, "
            "{tokens_per_s} tokens/s".format(**known),
            "",
            screen.table(head, rows),
        )
    )
