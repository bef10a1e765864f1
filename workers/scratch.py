"""Scratch folders: where something is executed that leaves nothing behind, even when it is killed.

They lie in one folder of the user, ``lockstep-<uid>`` beside other temporary files, and each is
locked (flock) by the process that made it. What nobody holds any more is swept when the next one
is made: the lock goes with its holder, however that ended.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from types import TracebackType

from lockstep.engine.errors import UsageError
from lockstep.workers.folder import holder_of

RUN = "run"  # A run folder inside, if there is one: its supervisor may outlive who asked for it.
_TRIES = 100  # The parent may be taken away by another process between two of our calls.


class Scratch:
    """A temporary folder for the length of a ``with``.

    Attributes:
        path: The folder.
    """

    path: Path

    def __enter__(self) -> "Scratch":
        parent = Path(tempfile.gettempdir()) / f"lockstep-{os.getuid()}"
        try:
            held = _hold_parent(parent)
            try:
                _sweep(parent)
                self.path = Path(tempfile.mkdtemp(dir=parent, prefix=""))
                self._lock = _open_folder(self.path)
                # Before the parent is let go: nobody finds the folder without its lock.
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            finally:
                os.close(held)
        except OSError as error:
            raise UsageError(
                f"{parent}: cannot make a temporary folder: {error.strerror}; TMPDIR names another "
                "place for it"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        _remove_empty(self.path.parent)


def _hold_parent(parent: Path) -> int:
    """A descriptor of the parent folder, locked: one process makes or sweeps at a time.

    Raises:
        OSError: it cannot be made, or what is there is not a private folder of ours.
    """
    for _ in range(_TRIES):
        parent.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = _open_folder(parent)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        found = os.fstat(descriptor)
        try:
            same = os.path.samestat(found, parent.lstat())
        except FileNotFoundError:
            same = False  # Its last user took it away while we waited for the lock.
        if same and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o022:
            return descriptor
        os.close(descriptor)
        if same:
            raise PermissionError(0, "it belongs to somebody else, or others may write in it")
    raise FileNotFoundError(0, "it disappears again and again")


def _remove_empty(parent: Path) -> None:
    """Take the parent away, unless somebody uses it: held, so that nobody is about to."""
    try:
        held = _open_folder(parent)
    except OSError:
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        parent.rmdir()
    except OSError:
        pass
    finally:
        os.close(held)


def _open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _sweep(parent: Path) -> None:
    """Remove what its maker left without its lock. The parent is held."""
    for path in list(parent.iterdir()):
        try:
            lock = _open_folder(path)
        except OSError:
            continue  # No folder, or just gone.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if holder_of(path / RUN) is None:
                shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass  # It is in use.
        finally:
            os.close(lock)
