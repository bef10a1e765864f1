"""Where the journal's bytes go, and what a durability level promises.

``memory``  written when a mebibyte has gathered and at the end: a crash of the process loses it.
``async``   written before anything is revealed, synced at the end: a crash of the machine may
            lose the tail.
``sync``    written and synced before anything is revealed.

While nothing is revealed there is nothing to keep a promise to: then ``async`` and ``sync`` write
what has gathered every `DELAY_S`, which is what a crash of the process loses at most.
"""

import os
import time
from pathlib import Path

from lockstep.engine.errors import JournalError

LEVELS = ("memory", "async", "sync")
DELAY_S = 0.02
_GATHERED_BYTES = 1 << 20


class JournalFile:
    """An append-only file behind `engine.journal.JournalWriter`."""

    def __init__(self, path: Path, level: str) -> None:
        self._path = path
        self._level = level
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._written_s = 0.0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._broken = False  # A write or sync failed: nothing more is written.
        self.bytes_written = 0
        sync_folder(path.parent)

    def write(self, data: bytes) -> None:
        """Take bytes; they are promised by `reveal`."""
        self._kept.append(data)
        self._kept_bytes += len(data)

    @property
    def behind(self) -> bool:
        """Whether something has gathered that the level does not let lie for long."""
        return self._kept_bytes > 0 and self._level != "memory"

    def reveal(self, visible: bool = True) -> None:
        """Make good what the level promises, before anything becomes visible outside.

        Args:
            visible: Something does. Without it this is about not falling behind too far.

        Raises:
            JournalError: no space, or an error of the disk; what was acknowledged stands.
        """
        if self._kept_bytes < _GATHERED_BYTES:
            if self._level == "memory":
                return
            if not visible and time.monotonic() - self._written_s < DELAY_S:
                return
        if self._kept:
            self._flush()
            if self._level == "sync":
                self._sync()

    def close(self) -> None:
        """Write and sync what is left, unless that failed before."""
        try:
            if not self._broken:
                self._flush()
                self._sync()
        finally:
            os.close(self._descriptor)

    def _flush(self) -> None:
        data = b"".join(self._kept)
        self._kept, self._kept_bytes = [], 0
        self._written_s = time.monotonic()
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            raise self._error("write", error) from None
        self.bytes_written += len(data)

    def _sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # Never retried: the kernel may have dropped the pages and say "good" next time.
            raise self._error("sync", error) from None

    def _error(self, what: str, error: OSError) -> JournalError:
        self._broken = True
        return JournalError(
            f"{self._path}: cannot {what}: {error.strerror}; the run stops, what was "
            f"acknowledged ({self.bytes_written} bytes) stands"
        )


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; a short write goes on where it stopped."""
    sent = 0
    while sent < len(data):
        sent += os.write(descriptor, memoryview(data)[sent:])


def sync_folder(path: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
