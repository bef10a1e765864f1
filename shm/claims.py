"""Claims: which named segments a process has made, where shared memory cannot be listed.

Whoever makes them has a file of claims, which it holds locked for as long as it lives: the kernel
lets go of the lock, whoever ends it how, and then everything in the file is nobody's. A name is
written down before the segment is made. So that nobody else can put names there, the folder is this
user's alone; a name in it can at worst remove a segment of this user.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import posix_ipc

from lockstep.shm.identity import alone

SUFFIX = ".claims"
TOKEN_BYTES = 4
_PREFIX = "/lockstep-"


def folder() -> Path:
    """Where this user's processes keep their claims; made if it is not there.

    Raises:
        PermissionError: something of another user, or open to others, is in its place.
    """
    path = Path(tempfile.gettempdir(), f"lockstep-{os.getuid()}")
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{path}: expected a folder of this user, mode 0700; nothing is kept")
    return path


class Claims:
    """What one process has made, or one run of it."""

    def __init__(self) -> None:
        # Not the pid alone: containers that share /tmp or shared memory have pids of their own.
        self._token = f"{os.getpid()}-{os.urandom(TOKEN_BYTES).hex()}"
        self._path = folder() / f"{self._token}{SUFFIX}"
        self._descriptor = _locked(self._path)
        self._number = 0

    def next_name(self) -> str:
        """A name that is ours from now on. Short: some systems allow 31 characters."""
        name = f"{_PREFIX}{self._token}-{self._number}"
        self._number += 1
        os.write(self._descriptor, f"{name}\n".encode())
        return name

    def close(self) -> None:
        """Whatever is left of what was claimed is removed, and the file. Idempotent."""
        if self._descriptor >= 0:
            _unlink_all(self._descriptor)
            self._path.unlink(missing_ok=True)  # Before the lock is gone: then it may be another's.
            os.close(self._descriptor)
            self._descriptor = -1


def sweep() -> list[str]:
    """Remove the segments that dead processes of this user have claimed; the names removed.

    Raises:
        PermissionError: as `folder`.
    """
    here = folder()
    removed: list[str] = []
    with alone(here / "sweep"):
        for path in sorted(here.glob(f"*{SUFFIX}")):
            removed += _swept(path)
    return removed


def _swept(path: Path) -> list[str]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []  # Its owner, or another sweeper, was first.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(descriptor, path):
            return []
        removed = _unlink_all(descriptor)
        path.unlink()
        return removed
    except BlockingIOError:
        return []  # Its owner lives.
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a file is still the one under a path: one that was taken away says nothing.

    Another process may have its pid by now, and the same names.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _locked(path: Path) -> int:
    """The file under ``path``, locked; not one that a sweeper has just taken away."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _unlink_all(descriptor: int) -> list[str]:
    """Remove what a file of claims names; the names that were there."""
    return [name for name in _names(descriptor) if _unlinked(name)]


def _names(descriptor: int) -> Iterator[str]:
    text = os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")
    # The last line may be torn: its segment was not made.
    for line in text.split("\n")[:-1]:
        if line.startswith(_PREFIX) and "/" not in line[1:] and "\0" not in line:
            yield line


def _unlinked(name: str) -> bool:
    try:
        posix_ipc.unlink_shared_memory(name)
    except (posix_ipc.ExistentialError, posix_ipc.PermissionsError):
        return False
    return True
