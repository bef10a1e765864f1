"""Identity of a process, names of segments made from it, and the sweep of what the dead left.

A pid is reused, so a pid alone names nobody. Pid and start time (clock ticks since boot) name one
process of this boot, and the boot id says which boot. Nothing is ever killed by a pid from a
file; the worst use of these names is to remove a segment, and only if its owner is provably dead.
"""

import fcntl
import itertools
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import posix_ipc

PROC = Path("/proc")
FOLDER = Path("/dev/shm")  # Where Linux shows POSIX shared memory.
_COUNTER = itertools.count()
ALONE_S_MAX = 1.0  # Waited for another sweeper.
_LOOK_S = 0.01

# Canonical decimal numbers only: what the pattern accepts, `segment_name` could have made.
_NUMBER = "(0|[1-9][0-9]{0,19})"
_NAME = re.compile(f"lockstep-{_NUMBER}-{_NUMBER}-{_NUMBER}-{_NUMBER}", re.ASCII)


@dataclass(frozen=True)
class Identity:
    """One process, for ever.

    Attributes:
        pid: Process id, in the namespace of who wrote it down.
        start_time_ticks: Start of the process in clock ticks since boot (/proc/PID/stat).
        boot_id: The boot it ran in (/proc/sys/kernel/random/boot_id).
    """

    pid: int
    start_time_ticks: int
    boot_id: str


def of(pid: int) -> Identity:
    """The identity of a living process.

    Raises:
        ProcessLookupError: no such process, or a zombie.
        FileNotFoundError: this system has no /proc.
    """
    started = _start_time_ticks(pid)
    if started is None:
        raise ProcessLookupError(f"process {pid} is not alive")
    return Identity(pid, started, _boot_id())


def current() -> Identity:
    """The identity of the calling process. Never cached: a forked child is somebody else."""
    return of(os.getpid())


def alive(identity: Identity) -> bool:
    """Whether this very process lives. A zombie does not; a reused pid is another process."""
    if identity.boot_id != _boot_id():
        return False
    return _start_time_ticks(identity.pid) == identity.start_time_ticks


def segment_name(number: int) -> str:
    """``/lockstep-<uid>-<pid>-<start time>-<number>`` of the calling process."""
    me = current()
    return f"/lockstep-{os.getuid()}-{me.pid}-{me.start_time_ticks}-{number}"


def next_name() -> str:
    """A name that this process has not used before. Free of randomness: pid and a counter."""
    return segment_name(next(_COUNTER))


def sweep() -> list[str]:
    """Remove the segments of this user whose owners are dead; safe to run at any time, by many.

    One at a time, as long as that one is not stopped: a hundred runs that start together look at
    everything once each, not all at once.

    A segment goes only if its whole name is one of ours, it is a regular file of this uid, no
    process of that pid and start time lives, and nobody maps it. The last is asked by flock:
    `segment.create` locks what it makes, and the lock lives as long as any mapping of it, in any
    process. So children that outlive their supervisor keep their board, and so does a process
    in another pid namespace, whose pid means nothing here. A doubt leaves the segment alone.

    Returns:
        The names removed, with their leading slash, sorted.

    Raises:
        FileNotFoundError: there is no /proc, so that death could not be proved.
    """
    current()  # Without /proc everybody would look dead.
    if not FOLDER.is_dir():
        return []
    with alone(FOLDER / f"lockstep-{os.getuid()}.sweep"):
        names = sorted(entry.name for entry in FOLDER.iterdir())
        return [f"/{name}" for name in names if _abandoned(name) and _unlinked(name)]


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """As the only one who sweeps, if that can be had: a lock under ``path`` while inside.

    The lock ends with its holder, whatever ends that; the file is removed by the last to hold it.
    A holder that is stopped must not stop everybody's start, nor must a file that is somebody
    else's: after `ALONE_S_MAX` we go on without. Sweeping side by side is safe, only work done
    twice.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError:
        yield
        return
    taken = _lock_taken(descriptor)
    try:
        yield
    finally:
        if taken:  # Who waits with it open gets a lock on nothing: see above.
            with suppress(OSError):
                path.unlink()
        os.close(descriptor)


def _lock_taken(descriptor: int) -> bool:
    end_s = time.monotonic() + ALONE_S_MAX
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end_s:
                return False
            time.sleep(_LOOK_S)


def _abandoned(name: str) -> bool:
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    uid, pid, started, _number = map(int, match.groups())
    if uid != os.getuid() or _start_time_ticks(pid) == started:
        return False
    try:
        # O_NONBLOCK: a foreign FIFO of such a name must not hold us.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(FOLDER / name, flags)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if status.st_uid != uid or not stat.S_ISREG(status.st_mode):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _unlinked(name: str) -> bool:
    try:
        posix_ipc.unlink_shared_memory(f"/{name}")
    except posix_ipc.ExistentialError:
        return False  # Another sweeper was first.
    return True


def _start_time_ticks(pid: int) -> int | None:
    """Start time of a living process; None if there is none or it is a zombie.

    Raises:
        FileNotFoundError: there is no /proc.
    """
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        (PROC / "self" / "stat").stat()
        return None
    # The command (field 2) may hold spaces and parentheses: count from its last one.
    fields = text.rpartition(")")[2].split()
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    # A main thread that ended before its siblings looks like a zombie; the process lives.
    if state in "ZX" and threads <= 1:
        return None
    return started


def _boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()
