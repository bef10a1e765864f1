"""Lock files: held (flock) by one process for as long as it lives, with its pid in them.

The kernel lets go of the lock, however the holder ends; what is written in the file outlives it and
says nothing by itself. Who looks has a shared lock for that moment, so whoever takes the file must
tell a look, which is waited for, from a holder, which is not.
"""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

LOOKS_S_MAX = 5.0  # A look takes microseconds, unless who looks is stopped in the middle of it.
RETRY_S = 0.001
_PID_BYTES_MAX = 32


class Taken(BlockingIOError):
    """Somebody else has the file.

    Attributes:
        who: "process N"; "another process" where N is not known.
    """

    def __init__(self, holder: int) -> None:
        self.who = f"process {holder}" if holder else "another process"
        super().__init__(0, f"{self.who} holds it")


def take(path: Path) -> int:
    """Hold a lock file, which is made if it is not there.

    Returns:
        The descriptor that holds it, not inherited by programs. Closing it lets go.

    Raises:
        Taken: another process holds it.
        OSError: it cannot be made, or may not be written.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for(lock)
    except BaseException:
        os.close(lock)
        raise
    with suppress(OSError):  # No room. It is for messages: the lock holds without it.
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def holder_of(path: Path) -> int | None:
    """Pid of who holds the file now, 0 if it has not said so yet; None when nobody does."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _locked(lock, fcntl.LOCK_SH) else _pid_in(lock)
    finally:
        os.close(lock)


def _wait_for(lock: int) -> None:
    end_s = time.monotonic() + LOOKS_S_MAX
    while not _locked(lock, fcntl.LOCK_EX):
        if not _locked(lock, fcntl.LOCK_SH):
            raise Taken(_pid_in(lock))
        # Shared it can be had: whoever is in the way only looks, as we have just done.
        fcntl.flock(lock, fcntl.LOCK_UN)
        if time.monotonic() > end_s:
            raise Taken(0)
        time.sleep(RETRY_S)


def _locked(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_in(lock: int) -> int:
    text = os.pread(lock, _PID_BYTES_MAX, 0).strip()
    return int(text) if text.isdigit() else 0
