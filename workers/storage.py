"""Storage: what a run asks of a disk, so that tests can put another one in its place.

Handles are descriptors of this process. Writes name their place: nothing depends on where a file
offset stands after a write that failed.
"""

import errno
import os
from pathlib import Path
from typing import Protocol

from lockstep.engine.compiled import mypyc_attr
from lockstep.engine.errors import JournalError, JournalFull

Bytes = bytes | memoryview
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_ZEROS = bytes(1 << 20)


class Storage(Protocol):
    """One folder of files. Everything raises OSError."""

    path: Path

    def names(self) -> list[str]:
        """Names in it, in order."""

    def make(self, name: str) -> int:
        """Make an empty file; a handle to write to. The name is durable after `sync_names`."""

    def open(self, name: str) -> int:
        """A handle to an existing file, to read and write."""

    def close(self, handle: int) -> None:
        """Let go of a handle."""

    def read(self, name: str) -> bytes:
        """The bytes of a file."""

    def write(self, handle: int, data: Bytes, offset: int) -> int:
        """Write at a place; how many bytes of ``data`` were written, at least 1."""

    def truncate(self, handle: int, size: int) -> None:
        """Cut a file."""

    def sync(self, handle: int) -> None:
        """Make a file's bytes durable."""

    def sync_names(self) -> None:
        """Make names that were made or removed durable."""

    def allocate(self, name: str, size: int) -> None:
        """Make a file whose room on the disk is taken; nothing is left of it when it fails."""

    def free(self) -> int:
        """Bytes of room there are."""

    def remove(self, name: str) -> None:
        """Remove a file; nothing to one that is not there."""


@mypyc_attr(allow_interpreted_subclasses=True)  # A profiled run's (profile/disks.py).
class Disk:
    """A folder of the file system.

    Attributes:
        path: Of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """As `Storage`."""
        return sorted(entry.name for entry in self.path.iterdir())

    def make(self, name: str) -> int:
        """As `Storage`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self.path / name, flags, 0o600)

    def open(self, name: str) -> int:
        """As `Storage`."""
        return os.open(self.path / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def close(self, handle: int) -> None:
        """As `Storage`."""
        os.close(handle)

    def read(self, name: str) -> bytes:
        """As `Storage`."""
        return (self.path / name).read_bytes()

    def write(self, handle: int, data: Bytes, offset: int) -> int:
        """As `Storage`."""
        return os.pwrite(handle, data, offset)

    def truncate(self, handle: int, size: int) -> None:
        """As `Storage`."""
        os.ftruncate(handle, size)

    def sync(self, handle: int) -> None:
        """As `Storage`."""
        # Where there is no fdatasync, fsync does more than is needed.
        getattr(os, "fdatasync", os.fsync)(handle)

    def sync_names(self) -> None:
        """As `Storage`."""
        sync_folder(self.path)

    def allocate(self, name: str, size: int) -> None:
        """As `Storage`."""
        handle = self.make(name)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:
                _fill(handle, size)
        except OSError:
            self.remove(name)
            raise
        finally:
            os.close(handle)

    def free(self) -> int:
        """As `Storage`."""
        told = os.statvfs(self.path)
        return told.f_bavail * told.f_frsize

    def remove(self, name: str) -> None:
        """As `Storage`."""
        (self.path / name).unlink(missing_ok=True)


class File:
    """A file that only grows, by whole writes.

    Attributes:
        name: Of it.
        handle: Of the storage; the file is its owner.
        size: Bytes that stand.
    """

    def __init__(self, storage: Storage, name: str, handle: int, size: int = 0) -> None:
        self._storage = storage
        self.name, self.handle, self.size = name, handle, size

    def append(self, data: bytes) -> None:
        """Write all of it, or nothing.

        Raises:
            JournalError: an error of the disk; `JournalFull`: it has no room. What was written of
                ``data`` is cut off again.
        """
        sent = 0
        try:
            while sent < len(data):
                part = data[sent:] if sent else data
                sent += self._storage.write(self.handle, part, self.size + sent)
        except OSError as error:
            self._cut()
            raise failure(self._storage.path / self.name, "write", error, self.size) from None
        self.size += sent

    def sync(self, found: bytes = b"") -> None:
        """Make it durable.

        Args:
            found: What it began with, if another process wrote that (`write_over`).

        Raises:
            JournalError: an error of the disk.
        """
        try:
            write_over(self._storage, self.handle, found)
            self._storage.sync(self.handle)
        except OSError as error:
            raise failure(self._storage.path / self.name, "sync", error, self.size) from None

    def cut(self, size: int) -> None:
        """Give up everything behind ``size`` bytes. Raises OSError."""
        self._storage.truncate(self.handle, size)
        self.size = size

    def close(self) -> None:
        """Let go of it."""
        self._storage.close(self.handle)

    def _cut(self) -> None:
        try:
            self._storage.truncate(self.handle, self.size)
        except OSError:
            pass  # Then it has a torn tail, which whoever resumes the run cuts.


def write_over(storage: Storage, handle: int, data: Bytes) -> None:
    """Write bytes over themselves, from the start of a file, so that the next sync covers them.

    After a sync that failed the kernel may show bytes that the disk never got, and take them for
    clean. Whoever goes on with a file that another process wrote cannot know. Raises OSError.
    """
    sent, view = 0, memoryview(data)
    while sent < len(view):
        sent += storage.write(handle, view[sent:], sent)


def failure(path: Path, what: str, error: OSError, size: int) -> JournalError:
    """What the run stops with."""
    kind = JournalFull if error.errno in NO_ROOM else JournalError
    return kind(
        f"{path}: cannot {what}: {error.strerror}; the run stops, what was "
        f"acknowledged ({size} bytes) stands"
    )


def sync_folder(path: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(handle: int, size: int) -> None:
    """Take the room of a new file, where nothing does it at once."""
    while size:
        size -= os.write(handle, _ZEROS[:size])
