"""The state folder of a service: its runs, which of them takes new items, and who holds it.

service.lock    held (flock) by the service while it lives
service.json    for people and clients: pid, fleet file, control socket, current run
current         link to the run that takes new items
runs/NAME-n/    run folders; each is whole, and can be verified, replayed, copied
control.sock    where the service is spoken to (or in the folder that --socket-dir names)
"""

import fcntl
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.workers import folder as folders
from lockstep.workers.journal_reading import has_begun
from lockstep.workers.storage import sync_folder

LOCK, INFO, CURRENT, RUNS, CONTROL = (
    "service.lock", "service.json", "current", "runs", "control.sock",
)  # fmt: skip
REMOVING = ".removing-"
HELD_S_MAX = 60.0  # A supervisor whose service was killed stops by itself, well before that.
LOOK_S = 0.05
DAY_S = 86_400
_NUMBER = re.compile(r"-(\d+)$")


@dataclass(frozen=True, slots=True)
class Keep:
    """Which runs that have ended are kept: those that every bound allows, the newest first.

    Attributes:
        runs: So many.
        days: None that ended longer ago; 0: any.
        bytes: All of them together; 0: any.
    """

    runs: int = 10
    days: int = 0
    bytes: int = 0


class StateFolder:
    """One service's folder, held.

    Attributes:
        path: Of the folder.
        runs: Of its runs.
    """

    def __init__(self, path: Path) -> None:
        """Make it where there is none, and hold it.

        Raises:
            UsageError: it cannot be made, is something else, or another service holds it.
        """
        self.path, self.runs = path, path / RUNS
        try:
            if path.is_dir() and any(path.iterdir()) and not (path / LOCK).exists():
                raise UsageError(f"{path}: is not empty, and not the state of a service")
            self.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"{path}: cannot hold the state: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise UsageError(f"{path}: process {holder} is this service already") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def found(self, waiting: Callable[[Path], None]) -> list[Path]:
        """Runs that are there, the oldest first. Those that had not begun are removed.

        Args:
            waiting: Told of one whose supervisor has not ended yet, again and again.

        Raises:
            UsageError: one is held by somebody who does not let go.
        """
        for part in self.runs.glob(f"{REMOVING}*"):
            shutil.rmtree(part, ignore_errors=True)
        paths = [
            path for path in self.runs.iterdir() if path.is_dir() and _NUMBER.search(path.name)
        ]
        there = []
        for path in sorted(paths, key=_number):
            _await_free(path, waiting)
            if has_begun(path):
                there.append(path)
            else:
                shutil.rmtree(path, ignore_errors=True)
        return there

    def next_run(self, fleet: str) -> Path:
        """The folder of the next run; numbers rise over all fleets."""
        numbers = [_number(path) for path in self.runs.iterdir() if _NUMBER.search(path.name)]
        return self.runs / f"{fleet}-{max(numbers, default=0) + 1}"

    def current(self) -> str:
        """Name of the run that takes new items; empty: there is none."""
        try:
            return (self.path / CURRENT).readlink().name
        except OSError:
            return ""

    def make_current(self, run: Path) -> None:
        """New items go there. Raises OSError."""
        part = self.path / f".{CURRENT}.part"
        part.unlink(missing_ok=True)
        part.symlink_to(Path(RUNS) / run.name)
        part.replace(self.path / CURRENT)
        sync_folder(self.path)

    def write(self, info: dict[str, Any]) -> None:
        """What people and clients read. Raises OSError."""
        part = self.path / f".{INFO}.part"
        part.write_text(json.dumps(info, indent=2) + "\n")
        part.replace(self.path / INFO)

    def remove(self, run: Path) -> None:
        """Remove a run, at once or not at all. Raises OSError."""
        part = run.with_name(REMOVING + run.name)
        run.rename(part)
        shutil.rmtree(part, ignore_errors=True)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._lock)


def surplus(ended: list[Path], keep: Keep) -> list[Path]:
    """Runs that are to be removed.

    Args:
        ended: Runs that have come to their end, the oldest first. No others.
        keep: What is kept.
    """
    now_s = time.time()
    total, gone = 0, []
    for kept, run in enumerate(reversed(ended), 1):
        total += _bytes_of(run) if keep.bytes else 0
        old = keep.days and now_s - _ended_s(run) > keep.days * DAY_S
        if kept > keep.runs or old or (keep.bytes and total > keep.bytes):
            gone.append(run)
    return gone


def check_private(folder: Path) -> None:
    """Refuse a folder for the control socket that anybody else may enter.

    Raises:
        UsageError: it is none, or open to others.
    """
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}") from None
    if not folder.is_dir() or mode & 0o077:
        raise UsageError(f"{folder}: mode {mode:04o}, expected a folder of mode 0700")


def info_of(state: Path) -> dict[str, Any]:
    """What a service wrote of itself.

    Raises:
        UsageError: there is no service in the folder.
    """
    try:
        value = json.loads((state / INFO).read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{state}: no service has this as its state ({INFO}: {reason})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{state / INFO}: is not what a service writes")
    return value


def _number(run: Path) -> int:
    found = _NUMBER.search(run.name)
    return int(found[1]) if found else 0


def _bytes_of(run: Path) -> int:
    total = 0
    for path in run.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def _ended_s(run: Path) -> float:
    try:
        return (run / folders.SUMMARY).stat().st_mtime
    except OSError:
        pass
    try:
        return run.stat().st_mtime
    except OSError:
        return 0.0  # Somebody removed it.


def _await_free(run: Path, waiting: Callable[[Path], None]) -> None:
    until_s = time.monotonic() + HELD_S_MAX
    while (holder := folders.holder_of(run)) is not None:
        if time.monotonic() > until_s:
            raise UsageError(f"{run}: process {holder} is still running it; nothing was touched")
        waiting(run)
        time.sleep(LOOK_S)
