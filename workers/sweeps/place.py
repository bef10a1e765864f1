"""The folder of a sweep: what it is, its runs, what is finished, its table.

sweep.json       what the sweep is (`plan.Plan.record`)
sweep.lock       held by the process that works on it (workers/lock_file.py)
runs/00001/      a run folder each, by number
finished.jsonl   a row for each run that is finished, in the order in which they were
results.csv      the table, in order of the grid; results.jsonl the same
results.html     plots of it
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.workers import folder as folders
from lockstep.workers import lock_file
from lockstep.workers.storage import sync_folder
from lockstep.workers.sweeps.grid import Point
from lockstep.workers.sweeps.plan import Plan, differences

SWEEP, LOCK, FINISHED, RUNS = "sweep.json", "sweep.lock", "finished.jsonl", "runs"
ORPHANS_S_MAX = 30.0  # What supervisors get to stop when who started them was killed.
LOOK_S = 0.02


class Place:
    """A sweep's folder, held by its lock.

    Attributes:
        path: The folder.
        finished: Rows of runs that are finished, by number.
    """

    def __init__(self, wanted: Path | None, plan: Plan) -> None:
        """Make the folder of a new sweep, or go on with the one that is there.

        Args:
            wanted: The folder; None: a new one, ``sweeps/<fleet>-<n>``.
            plan: What is to be run.

        Raises:
            UsageError: it holds something else, another sweep, or one that somebody works on.
        """
        self.path = _free(plan.fleets[0].name) if wanted is None else wanted.absolute()
        try:
            self._lock = _hold(self.path)
            try:
                self.finished = self._begin(plan)
                self._file = open(self.path / FINISHED, "ab")  # noqa: SIM115
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            why = error.strerror or error
            raise UsageError(f"{self.path}: cannot hold the sweep: {why}") from None

    def run(self, point: Point) -> Path:
        """The folder of a run."""
        return self.path / RUNS / f"{point.number:05}"

    def finish(self, row: dict[str, Any]) -> None:
        """Keep a row for ever: its run is not made again. Raises OSError."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.finished[row["run"]] = row

    def write(self, name: str, text: str) -> None:
        """Write a file whole, or not at all. Raises OSError."""
        part = self.path / f".{name}.part"
        with open(part, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path / name)
        sync_folder(self.path)

    def close(self) -> None:
        """Let go of it."""
        self._file.close()
        os.close(self._lock)

    def _begin(self, plan: Plan) -> dict[int, dict[str, Any]]:
        """Check that the sweep is this one, or say that it is; rows that are finished."""
        path = self.path / SWEEP
        if not path.exists():
            self.write(SWEEP, json.dumps(plan.record, indent=2) + "\n")
            return {}
        try:
            then = json.loads(path.read_bytes())
        except ValueError as error:
            raise UsageError(f"{path}: cannot be read: {error}; nothing was touched") from None
        changed = differences(plan.record, then if isinstance(then, dict) else {})
        if changed:
            raise UsageError(
                f"{self.path}: holds another sweep, nothing was touched; what differs: "
                f"{'; '.join(changed)}"
            )
        return _read(self.path / FINISHED)


def clear(run: Path) -> bool:
    """Whether a run has begun; what one that has not left behind is removed.

    A supervisor whose sweep was killed stops by itself: that is waited for.

    Raises:
        UsageError: somebody holds the run, and goes on with it.
    """
    deadline_s = time.monotonic() + ORPHANS_S_MAX
    while (holder := folders.holder_of(run)) is not None:
        if time.monotonic() > deadline_s:
            raise UsageError(f"{run}: process {holder} is still running it")
        time.sleep(LOOK_S)
    if (run / folders.MANIFEST).exists():
        return True
    shutil.rmtree(run, ignore_errors=True)  # Killed while it was made: nothing was run.
    return False


def _hold(path: Path) -> int:
    """The lock of a sweep's folder, which is made if it is not there. Raises OSError."""
    if path.is_dir() and not (path / LOCK).exists() and any(path.iterdir()):
        raise UsageError(f"{path}: holds something else; nothing was touched")
    path.mkdir(parents=True, exist_ok=True)
    try:
        return lock_file.take(path / LOCK)
    except lock_file.Taken as taken:
        raise UsageError(f"{path}: {taken.who} works on this sweep; nothing was touched") from None


def _free(name: str) -> Path:
    parent = Path.cwd() / "sweeps"
    return parent / f"{name}-{folders.free_number(parent, name)}"


def _read(path: Path) -> dict[int, dict[str, Any]]:
    """Rows as they were kept. A torn line is cut: its run is looked at again.

    Raises:
        UsageError: a line is no row.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    rows = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            rows[int(row["run"])] = row
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{path}: line {number} is no row of a sweep") from None
    return rows
