"""Segment: a piece of POSIX shared memory that is whole or does not exist.

All its bytes are reserved before anybody maps it, so that no access can ever end in SIGBUS, and
no process holds a descriptor of it afterwards, so that a forked child can reach only what it
inherits as a mapping.
"""

import errno
import fcntl
import mmap
import os

import posix_ipc

from lockstep.shm import identity
from lockstep.shm.errors import SegmentFull

MODE = 0o600
_NO_ROOM = {errno.ENOSPC, errno.ENOMEM, errno.EDQUOT, errno.EFBIG}


class Segment:
    """One mapping. Made by `create`, `create_unlinked` and `attach`; its owner calls `close`.

    Attributes:
        name: Name with its leading slash (already unlinked or not).
        memory: All bytes; valid until `close`. Read-only if attached.
    """

    def __init__(self, name: str, mapping: mmap.mmap, descriptors: tuple[int, ...]) -> None:
        self.name = name
        self.memory = memoryview(mapping)
        self._mapping = mapping
        self._descriptors = descriptors
        self._creator_pid = os.getpid()

    def descriptors(self) -> tuple[int, ...]:
        """Descriptors that Python's mmap object keeps (see `_map_detached`).

        A forked child may close them (nothing of the segment is behind them), but must then
        leave by ``os._exit``: the mmap object would close the same numbers once more.
        """
        return self._descriptors

    def advise(self, advice: int, start: int, length: int) -> None:
        """madvise(2) on ``length`` bytes from ``start``, which is a multiple of the page size."""
        self._mapping.madvise(advice, start, length)

    def unlink(self) -> None:
        """Remove the name; mappings stay valid. Does nothing in a forked child of the creator."""
        if os.getpid() != self._creator_pid:
            return
        try:
            posix_ipc.unlink_shared_memory(self.name)
        except posix_ipc.ExistentialError:
            pass  # Somebody was quicker; the name is gone, as asked.

    def close(self) -> None:
        """Unmap. Idempotent; may be tried again after a BufferError.

        Raises:
            BufferError: a ring, a cursor or an array still holds a view: close that first.
        """
        try:
            self.memory.release()
            self._mapping.close()
        except BufferError as error:
            raise BufferError(
                f"segment {self.name}: a view of it is still alive; close its rings and drop its "
                "arrays first. It stays mapped."
            ) from error


def create(name: str, size_bytes: int) -> Segment:
    """A new, zeroed segment under ``name``, readable and writable by this user only.

    Args:
        name: With its leading slash, as `identity.next_name` makes it.
        size_bytes: At least 1.

    Raises:
        FileExistsError: the name is taken; that segment is untouched.
        SegmentFull: no room; the name does not exist afterwards.
    """
    return _create(name, size_bytes, unlink_first=False)


def create_unlinked(size_bytes: int) -> Segment:
    """A new, zeroed segment without a name: it goes with its last mapping, whoever dies how.

    It has a name between two system calls; should we be killed there, `identity.sweep` knows it.

    Raises:
        SegmentFull: no room; nothing is left behind.
    """
    while True:
        try:
            return _create(identity.next_name(), size_bytes, unlink_first=True)
        except FileExistsError:
            continue  # Ours, under a number that somebody made by hand. Take the next.


def attach(name: str) -> Segment:
    """Map an existing segment of this user read-only, for an observer.

    Raises:
        FileNotFoundError: no such segment, or it is not yet sized.
        PermissionError: it belongs to somebody else, who could shrink it under us.
    """
    try:
        descriptor = posix_ipc.SharedMemory(name, read_only=True).fd
    except posix_ipc.ExistentialError:
        raise FileNotFoundError(errno.ENOENT, "no such shared memory", name) from None
    except posix_ipc.PermissionsError:
        raise PermissionError(errno.EACCES, "shared memory of another user", name) from None
    try:
        status = os.fstat(descriptor)
        if os.geteuid() not in (0, status.st_uid):
            raise PermissionError(errno.EACCES, "shared memory of another user", name)
        if status.st_size == 0:  # `create` sizes it only when all its pages are there.
            raise FileNotFoundError(errno.ENOENT, "shared memory is not ready", name)
        mapping = mmap.mmap(descriptor, status.st_size, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(descriptor)
    return Segment(name, mapping, ())


def _create(name: str, size_bytes: int, *, unlink_first: bool) -> Segment:
    if size_bytes < 1:
        raise ValueError(f"segment {name}: {size_bytes} bytes, expected 1 or more")
    try:
        # shm_open adds O_NOFOLLOW and O_CLOEXEC.
        descriptor = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=MODE).fd
    except posix_ipc.ExistentialError:
        raise FileExistsError(errno.EEXIST, "shared memory exists", name) from None
    whole = False
    try:
        if unlink_first:
            posix_ipc.unlink_shared_memory(name)
        # Held by the mapping, not by this descriptor: see `identity.sweep`.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _reserve(descriptor, name, size_bytes)
        mapping, kept = _map_detached(descriptor, size_bytes)
        whole = True
    finally:
        os.close(descriptor)
        if not whole and not unlink_first:
            posix_ipc.unlink_shared_memory(name)
    return Segment(name, mapping, (kept,))


def _reserve(descriptor: int, name: str, size_bytes: int) -> None:
    # ftruncate would succeed on a full /dev/shm and the first touch be a SIGBUS. posix_fallocate
    # takes all pages or none, and sets the size last: a segment with a size is a whole one.
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        status = os.fstatvfs(descriptor)
        free_bytes = status.f_bavail * status.f_frsize
        raise SegmentFull(name, size_bytes, free_bytes) from error


def _map_detached(descriptor: int, size_bytes: int) -> tuple[mmap.mmap, int]:
    """Map, and leave no descriptor of the segment behind.

    Python's mmap keeps a duplicate for its `resize`, which we never call. Every forked child
    would inherit it and could map the whole arena through it, MADV_DONTFORK or not. So that
    number is pointed at /dev/null: harmless to inherit, and still there for mmap to close.
    """
    expected = os.dup(descriptor)  # dup takes the lowest free number, and will again.
    os.close(expected)
    mapping = mmap.mmap(descriptor, size_bytes)
    try:
        found = os.path.sameopenfile(expected, descriptor)
    except OSError:
        found = False
    if not found:
        mapping.close()
        raise RuntimeError("another thread opened a descriptor while a segment was created")
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.dup2(nothing, expected, inheritable=False)
    finally:
        os.close(nothing)
    return mapping, expected
