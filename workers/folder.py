"""Run folders: a run is one folder, whole, that can be moved, kept and repeated.

manifest.json   what the run is and what it ran on, for people
fleet.toml      the fleet file as it was
input.jsonl     the input as it was
modules/        the agents' modules, one file per [agents.NAME]
journal/        what happened
output.jsonl    the output, in item order
logs/           one file per agent that logged
summary.json    figures at the end
profile/        what its processes recorded, if it was profiled (docs/profiling.md)
run.lock        held by the supervisor while the run is alive (workers/lock_file.py)
control.sock    where a living run is spoken to (workers/outside/control.py); those of sources are
                beside it
"""

import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.workers import lock_file
from lockstep.workers.storage import sync_folder

JOURNALS, LOGS, PROFILE = "journal", "logs", "profile"
JOURNAL = f"{JOURNALS}/00000000.journal"  # Its first segment.
FLEET, INPUT, OUTPUT = "fleet.toml", "input.jsonl", "output.jsonl"
MANIFEST, SUMMARY, LOCK, BOARD = "manifest.json", "summary.json", "run.lock", "board.json"
CONTROL = "control.sock"
ORPHANS_S_MAX = 5.0  # What children of a dead supervisor get to die with it.
NAMES = (
    FLEET,
    INPUT,
    OUTPUT,
    MANIFEST,
    SUMMARY,
    LOCK,
    BOARD,
    CONTROL,
    "modules",
    "journal",
    "logs",
    PROFILE,
)


class RunFolder:
    """A folder of one run, held by its lock."""

    def __init__(self, path: Path, lock: int, found: bool) -> None:
        self.path = path
        self._lock = lock
        self._found = found  # The empty folder was there before us.
        self._logs: dict[str, list[str]] = {}

    @classmethod
    def create(cls, wanted: Path | None, base: Path, fleet_name: str) -> "RunFolder":
        """Make the folder of a new run and hold it.

        Args:
            wanted: ``--run-dir``; otherwise ``runs/<fleet>-<n>`` under ``base``.
            base: Working folder of the person.
            fleet_name: For the default name.

        Raises:
            UsageError: it holds a run already (alive or not) or cannot be made.
        """
        found = wanted is not None and wanted.exists()
        where = wanted if wanted is not None else base / "runs"
        try:
            path = cls._make(wanted, base / "runs", fleet_name)
            made = cls(path.resolve(), lock_file.take(path / LOCK), found)
        except OSError as error:
            raise UsageError(f"{where}: cannot make the run folder: {error.strerror}") from None
        try:
            for name in ("modules", "journal", "logs"):
                (path / name).mkdir(mode=0o700)
        except OSError as error:
            made.remove()
            raise UsageError(f"{where}: cannot make the run folder: {error.strerror}") from None
        return made

    @classmethod
    def reopen(cls, path: Path) -> "RunFolder":
        """Hold the folder of a run that is to go on.

        Raises:
            UsageError: there is no run, or somebody holds it (who is named), or it cannot be
                written.
        """
        if not (path / JOURNALS).is_dir():
            raise UsageError(f"{path}: no run in this folder")
        try:
            lock = lock_file.take(path / LOCK)
        except lock_file.Taken as taken:
            raise UsageError(f"{path}: {taken.who} is running it; nothing was touched") from None
        except OSError as error:
            raise UsageError(f"{path}: cannot hold the run: {error.strerror}") from None
        try:
            (path / LOGS).mkdir(mode=0o700, exist_ok=True)
            for part in path.glob(".*.part"):  # Half written when the run was killed.
                part.unlink()
        except OSError as error:
            os.close(lock)
            raise UsageError(f"{path}: cannot go on with the run: {error}") from None
        return cls(path.resolve(), lock, True)

    @staticmethod
    def _make(wanted: Path | None, runs: Path, fleet_name: str) -> Path:
        if wanted is not None:
            check_free(wanted)
            wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
            return wanted
        runs.mkdir(parents=True, exist_ok=True)
        number = free_number(runs, fleet_name)
        while True:
            path = runs / f"{fleet_name}-{number}"
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                number += 1  # Another run took it just now.
            else:
                return path

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the folder whole, or not at all."""
        path = self.path / name
        temporary = path.with_name(f".{path.name}.part")
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file for people."""
        self.write(name, json.dumps(value, indent=2).encode() + b"\n")

    def amend_json(self, name: str, more: dict[str, Any]) -> None:
        """Put more keys into a JSON file for people, or others in their place."""
        self.write_json(name, {**json.loads((self.path / name).read_bytes()), **more})

    def log(self, agent: str, line: str) -> None:
        """Keep a line for the agent's log file."""
        self._logs.setdefault(agent, []).append(line)

    def flush_logs(self) -> None:
        """Append what was kept."""
        for agent, lines in self._logs.items():
            with open(self.path / "logs" / f"{agent}.log", "a", encoding="utf-8") as file:
                file.write("".join(lines))
        self._logs = {}

    def remove(self) -> None:
        """Undo `create`: the run never began."""
        if self._found:
            for entry in self.path.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        else:
            shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._lock)


def check_free(wanted: Path) -> None:
    """Refuse a folder that holds anything.

    Raises:
        UsageError: it holds a run (its holder is named while it is alive) or other files.
    """
    if not wanted.exists():
        return
    if not wanted.is_dir():
        raise UsageError(f"{wanted}: not a folder; nothing was touched")
    if (wanted / LOCK).exists():
        holder = holder_of(wanted)
        state = f"and process {holder} is running it" if holder else "already"
        raise UsageError(f"{wanted}: holds a run {state}; nothing was touched")
    if any(wanted.iterdir()):
        raise UsageError(f"{wanted}: the folder is not empty; nothing was touched")


def free_number(parent: Path, name: str) -> int:
    """One more than the largest N of what is called NAME-N in a folder, which need not be there."""
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    there = parent.iterdir() if parent.is_dir() else iter(())
    taken = [int(found[1]) for entry in there if (found := pattern.fullmatch(entry.name))]
    return max(taken, default=0) + 1


def holder_of(run: Path) -> int | None:
    """Pid of the supervisor that runs this folder now; None when nobody does."""
    return lock_file.holder_of(run / LOCK)


def living_holder_of(run: Path) -> int | None:
    """As `holder_of`, for who wants the run.

    A supervisor that was killed right behind a fork leaves a child that has its lock and is about
    to die with it: that is waited for.
    """
    deadline_s = time.monotonic() + ORPHANS_S_MAX
    while (holder := holder_of(run)) and not _is_there(holder) and time.monotonic() < deadline_s:
        time.sleep(ORPHANS_S_MAX / 500)
    return holder


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def check_output(path: Path, needed: Sequence[Path]) -> None:
    """Refuse a place for ``--output`` that must not or cannot be written, before anything starts.

    Args:
        path: The place.
        needed: Files that the run is made from.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is there and is no regular file; nothing was touched")
    for file in needed:
        if path.exists() and file.exists() and path.samefile(file):
            raise UsageError(f"{path}: the output would replace what the run is made from")
    if (path.resolve().parent / LOCK).exists():
        raise UsageError(f"{path}: lies in the folder of a run; nothing was touched")
    if not os.access(path.resolve().parent, os.W_OK):
        raise UsageError(f"{path}: cannot write the output there")


def copy_output(run: Path, target: Path) -> None:
    """Copy a run's output file, whole or not at all. A link is followed, never replaced."""
    target = target.resolve()
    temporary = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(run / OUTPUT, temporary)
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
