"""The state folder of a service: its runs, which of them takes new items, and who holds it.

service.lock    held by the service while it lives (workers/lock_file.py)
service.json    for people and clients: pid, fleet file, control socket, current run
current         link to the run that takes new items
last-run        the highest number that a run ever had: none has it again
runs/NAME-n/    run folders; each is whole, and can be verified, replayed, copied
control.sock    where the service is spoken to (or in the folder that --socket-dir names)
"""

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
from lockstep.engine.journal.format import SEGMENT_BYTES
from lockstep.workers import folder as folders
from lockstep.workers import lock_file
from lockstep.workers.storage import sync_folder

LOCK, INFO, CURRENT, RUNS, CONTROL, LAST = (
    "service.lock", "service.json", "current", "runs", "control.sock", "last-run",
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
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(path.iterdir()) and not (path / LOCK).exists():
                raise UsageError(f"{path}: is not empty, and not the state of a service")
            path.chmod(0o700)
            # First of all: whoever dies behind it leaves what is known as a state folder.
            self._lock = lock_file.take(path / LOCK)
        except lock_file.Taken as taken:
            raise UsageError(f"{path}: {taken.who} is this service already") from None
        except OSError as error:
            raise UsageError(f"{path}: cannot hold the state: {error.strerror}") from None
        try:
            self.runs.mkdir(mode=0o700, exist_ok=True)
            self._booked = self._last = self._last_booked()
        except OSError as error:
            self.close()
            raise UsageError(f"{path}: cannot hold the state: {error.strerror}") from None
        except UsageError:
            self.close()
            raise

    @property
    def held(self) -> bool:
        """Whether the folder is still the one that we hold, and not removed or replaced."""
        try:
            return os.path.samestat((self.path / LOCK).stat(), os.fstat(self._lock))
        except OSError:
            return False

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
        self._last = max(self._last, *map(_number, paths), 0)  # Whatever becomes of them.
        for path in sorted(paths, key=_number):
            _await_free(path, waiting)
            if _never_began(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                there.append(path)
        return there

    def next_run(self, fleet: str) -> Path:
        """The folder of the next run. Numbers rise over all fleets, and none is given twice.

        Raises:
            OSError: the folder of runs is gone, and cannot be made again.
        """
        self.runs.mkdir(mode=0o700, exist_ok=True)
        self._last = (
            max(self._last, *map(_number, self.runs.iterdir()), _number(self._current), 0) + 1
        )
        with suppress(OSError):  # Its folder says the number, too; `remove` needs it in the book.
            self._book()
        return self.runs / f"{fleet}-{self._last}"

    def current(self) -> str:
        """Name of the run that takes new items; empty: there is none."""
        return self._current.name

    @property
    def _current(self) -> Path:
        try:
            return (self.path / CURRENT).readlink()
        except OSError:
            return Path()

    def make_current(self, run: Path) -> None:
        """New items go there. Raises OSError."""
        part = self.path / f".{CURRENT}.part"
        part.unlink(missing_ok=True)
        part.symlink_to(Path(RUNS) / run.name)
        part.replace(self.path / CURRENT)
        sync_folder(self.path)

    def write(self, info: dict[str, Any]) -> None:
        """What people and clients read. Raises OSError."""
        self._write(INFO, json.dumps({**info, "folder": _which(self.path)}, indent=2) + "\n")

    def remove(self, run: Path) -> None:
        """Remove a run, at once or not at all; its number stays in the book. Raises OSError."""
        self._last = max(self._last, _number(run))
        self._book()
        part = run.with_name(REMOVING + run.name)
        run.rename(part)
        shutil.rmtree(part, ignore_errors=True)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._lock)

    def _last_booked(self) -> int:
        path = self.path / LAST
        try:
            text = path.read_text().strip()
        except FileNotFoundError:
            return 0
        except UnicodeDecodeError:
            text = ""
        if not text.isascii() or not text.isdecimal():
            raise UsageError(f"{path}: is not the number of a run; nothing was touched")
        return int(text)

    def _book(self) -> None:
        if self._booked < self._last:
            self._write(LAST, f"{self._last}\n", durable=True)
            self._booked = self._last

    def _write(self, name: str, text: str, durable: bool = False) -> None:
        """A file, whole or as it was. Raises OSError."""
        part = self.path / f".{name}.part"
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(self.path / name)
        if durable:
            sync_folder(self.path)


class Seen:
    """A folder that has to stay the one that it was when it was looked at first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: os.stat_result | None = None

    def is_there(self) -> bool:
        """Whether it is; also when nobody can look now."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        self._first = self._first or found
        return os.path.samestat(self._first, found)


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


def make_private(folder: Path) -> None:
    """Make a folder for the control socket; refuse one that anybody else may enter.

    Raises:
        UsageError: it cannot be made, or is open to others.
    """
    what = f"--socket-dir {folder}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise UsageError(f"{what}: cannot be made: {error.strerror}") from None
    if mode & 0o077:
        raise UsageError(f"{what}: mode {mode:04o}, expected a folder of mode 0700")


def info_of(state: Path) -> dict[str, Any]:
    """What a service wrote of itself.

    Raises:
        UsageError: there is no service in the folder, or it is a copy of one's: what is written
            there is true of the other one.
    """
    try:
        value = json.loads((state / INFO).read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{state}: no service has this as its state ({INFO}: {reason})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{state / INFO}: is not what a service writes")
    if value.get("folder", _which(state)) != _which(state):
        raise UsageError(f"{state}: is a copy of a service's state; no service has run on it yet")
    return value


def _which(folder: Path) -> list[int]:
    """What tells a folder from a copy of it. Raises OSError."""
    found = folder.stat()
    return [found.st_dev, found.st_ino]


def _never_began(run: Path) -> bool:
    """Whether nothing can be in a run's folder. Of what cannot be looked at, nobody knows."""
    first = run / folders.JOURNAL
    try:
        segments = [path for path in _entries(run / folders.JOURNALS) if path.suffix == ".journal"]
        sizes = [path.stat().st_size for path in segments]
        output = run / folders.OUTPUT
        said = output.exists() and output.stat().st_size > 0
    except OSError:
        return False
    return segments in ([], [first]) and sum(sizes) <= SEGMENT_BYTES and not said


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is none. Raises OSError."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


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
