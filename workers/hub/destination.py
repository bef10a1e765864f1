"""The folder that a model is pulled into: what may lie there, and how it gets there whole.

Files grow in a folder of their own inside it. When all of them are proven they are moved to their
places, weights first, configuration last, and then the receipt is written: so a folder with a
receipt is whole, and one without never loads by accident. Nothing that was there is overwritten.
"""

import fcntl
import os
import shutil
from pathlib import Path

from lockstep.engine.errors import UsageError
from lockstep.workers.hub.listing import RemoteFile, sized
from lockstep.workers.hub.receipt import RECEIPT, Receipt, read_receipt

STAGING = ".lockstep-pull"
PLAN, PARTS, LOCK, NEXT = "plan.json", "files", "lock", "next.json"
NAMED_MAX = 3  # Of the files that are in the way, in a message.


class Destination:
    """One folder, which need not be there yet.

    Args:
        root: The folder.

    Attributes:
        done: Its receipt: a pull that came to its end.
        begun: Its plan: one that did not.

    Raises:
        UsageError: something else is there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.staging = root / STAGING
        self._lock: int | None = None
        if root.exists() and not root.is_dir():
            raise UsageError(f"{root}: not a folder; choose another place with --to")
        self.done = read_receipt(root / RECEIPT)
        self.begun = None if self.done else read_receipt(self.staging / PLAN)
        if self.done is None and self.begun is None:
            self._expect_empty()

    def _expect_empty(self) -> None:
        found = sorted(p.name for p in self.root.iterdir()) if self.root.exists() else []
        found = [name for name in found if name != STAGING]
        if found:
            named = ", ".join(found[:NAMED_MAX]) + (", ..." if len(found) > NAMED_MAX else "")
            raise UsageError(
                f"{self.root}: has other files in it ({named}), and nothing is overwritten; "
                f"choose another folder with --to"
            )

    def expect(self, plan: Receipt) -> None:
        """Refuse to mix models.

        Raises:
            UsageError: the folder has, or is getting, another model.
        """
        there = self.done or self.begun
        if there is not None and not there.same(plan):
            state = "has" if self.done else "has the beginning of"
            raise UsageError(
                f"{self.root}: {state} {there}, and {plan} was asked for; nothing was changed; "
                f"choose another folder with --to"
            )

    def room(self, needed: int) -> int:
        """Bytes that are free where the folder is, or will be.

        Raises:
            UsageError: fewer than ``needed``.
        """
        near = next(path for path in (self.root, *self.root.parents) if path.exists())
        free = shutil.disk_usage(near).free
        if needed > free:
            raise UsageError(
                f"{self.root}: {sized(needed)} are needed ({needed} bytes) and {sized(free)} are "
                f"free ({free} bytes)"
            )
        return free

    def present(self, file: RemoteFile) -> int:
        """Bytes of a file that are there already."""
        for path in (self.root / file.path, self._part(file)):
            try:
                return min(path.stat().st_size, file.size)
            except OSError:
                continue
        return 0

    def begin(self, plan: Receipt) -> None:
        """Make the folder and write down what comes into it. `close` lets others in again.

        Raises:
            UsageError: somebody else is pulling into it.
        """
        self.staging.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.staging / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UsageError(f"{self.root}: another pull is writing to it") from None
        plan.write(self.staging / PLAN, self.staging / NEXT)

    def close(self) -> None:
        """Let go of the lock. Twice is harmless."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def place(self, file: RemoteFile) -> Path | None:
        """Where a file lies that was moved already, by a pull that was killed while it moved."""
        path = self.root / file.path
        return path if path.exists() else None

    def part(self, file: RemoteFile) -> Path:
        """Where a file grows; its folder is made."""
        path = self._part(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _part(self, file: RemoteFile) -> Path:
        return self.staging / PARTS / file.path

    def finish(self, receipt: Receipt) -> None:
        """Move everything to its place, then say that it is whole."""
        for taken in reversed(receipt.files):
            path, part = self.root / taken.file, self.staging / PARTS / taken.file
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                part.rename(path)
        folders = {(self.root / taken.file).parent for taken in receipt.files}
        for folder in sorted({self.root, *folders}):
            _sync(folder)
        receipt.write(self.root / RECEIPT, self.staging / NEXT)
        _sync(self.root)
        self.sweep()

    def sweep(self) -> None:
        """Remove what a pull that is done has left."""
        if self.staging.exists():
            shutil.rmtree(self.staging)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
