"""Segment: a piece of shared memory that is whole or does not exist.

All its bytes are reserved before anybody maps it, so that no access can ever end in SIGBUS, and
no process holds a descriptor of it afterwards, so that a forked child can reach only what it
inherits as a mapping. What needs no name is a sealed file in memory: no process, whatever it may
open, can shrink it under us. What others find by name cannot be sealed; it is mode 0600, and who
attaches to it refuses one of another user, who alone could shrink it.
"""

import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import posix_ipc

from lockstep.shm import identity
from lockstep.shm.errors import SegmentFull

MODE = 0o600
MEMINFO = Path("/proc/meminfo")
UNNAMED = "without a name"
_NO_ROOM = {errno.ENOSPC, errno.ENOMEM, errno.EDQUOT, errno.EFBIG}


class Loan(NamedTuple):
    """Bytes of a mapping that one child inherits: ``advise(MADV_DOFORK, start, length)`` before
    its fork, ``MADV_DONTFORK`` after it."""

    advise: Callable[[int, int, int], object]
    start: int
    length: int


class Segment:
    """One mapping. Made by `create`, `create_unlinked` and `attach`; its owner calls `close`.

    Args:
        inherited: Children are forked from this process, and `inherit` says what they get. Where
            each is a fresh process it inherits nothing, and nothing is to be said.

    Attributes:
        name: Name with its leading slash, or `UNNAMED`.
        memory: All bytes; valid until `close`. Read-only if attached as an observer.
    """

    def __init__(
        self,
        name: str,
        mapping: mmap.mmap,
        descriptors: tuple[int, ...],
        inherited: bool = True,
    ) -> None:
        self.name = name
        self.memory = memoryview(mapping)
        self._mapping = mapping
        self._descriptors = descriptors
        self._inherited = inherited
        self._creator_pid = os.getpid()

    def descriptors(self) -> tuple[int, ...]:
        """Descriptors that Python's mmap object keeps (see `_map_detached`).

        A forked child may close them (nothing of the segment is behind them), but must then
        leave by ``os._exit``: the mmap object would close the same numbers once more.
        """
        return self._descriptors

    def inherit(self, wanted: bool, start: int, length: int) -> None:
        """Whether children forked from now on map ``length`` bytes from ``start``, a page's."""
        if self._inherited:
            advice = mmap.MADV_DOFORK if wanted else mmap.MADV_DONTFORK
            self._mapping.madvise(advice, start, length)

    def loan(self, start: int, length: int) -> Loan:
        """What `inherit` does, to be done by somebody else; only where children are forked."""
        return Loan(self._mapping.madvise, start, length)

    def unlink(self) -> None:
        """Remove the name; mappings stay valid. Does nothing in a forked child of the creator."""
        if self.name == UNNAMED or os.getpid() != self._creator_pid:
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
    descriptor = open_new(name, size_bytes)
    whole = False
    try:
        # Held by the mapping, not by this descriptor: see `identity.sweep`.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        reserve(descriptor, name, size_bytes)
        made = mapped(descriptor, name, size_bytes)
        whole = True
    finally:
        os.close(descriptor)
        if not whole:
            posix_ipc.unlink_shared_memory(name)
    return made


def create_unlinked(size_bytes: int) -> Segment:
    """A new, zeroed segment without a name: it goes with its last mapping, whoever dies how.

    A sealed file in memory: it can neither shrink nor grow, and lies in no file system, so that
    /dev/shm may be small. Where there is none, a segment whose name is gone at once; should we be
    killed between the two system calls, `identity.sweep` knows it.

    Raises:
        SegmentFull: no room; nothing is left behind.
    """
    if hasattr(os, "memfd_create"):
        return _create_sealed(size_bytes)
    while True:
        try:
            return _create_unlinked(identity.next_name(), size_bytes)
        except FileExistsError:
            continue  # Ours, under a number that somebody made by hand. Take the next.


def attach(name: str, *, writable: bool = False) -> Segment:
    """Map an existing segment of this user.

    Args:
        name: Of the segment.
        writable: For its other side; an observer only reads.

    Raises:
        FileNotFoundError: no such segment, or it is not yet sized.
        PermissionError: it belongs to somebody else, who could shrink it under us.
    """
    try:
        descriptor = posix_ipc.SharedMemory(name, read_only=not writable).fd
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
        if writable:
            return mapped(descriptor, name, status.st_size, inherited=False)
        mapping = mmap.mmap(descriptor, status.st_size, mmap.MAP_SHARED, mmap.PROT_READ)
        return Segment(name, mapping, (), inherited=False)
    finally:
        os.close(descriptor)


def open_new(name: str, size_bytes: int) -> int:
    """A descriptor of a new, empty segment under a name that was free.

    Raises:
        FileExistsError: the name is taken; that segment is untouched.
    """
    if size_bytes < 1:
        raise ValueError(f"segment {name}: {size_bytes} bytes, expected 1 or more")
    try:
        # shm_open adds O_NOFOLLOW and O_CLOEXEC.
        descriptor: int = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=MODE).fd
    except posix_ipc.ExistentialError:
        raise FileExistsError(errno.EEXIST, "shared memory exists", name) from None
    return descriptor


def reserve(descriptor: int, name: str, size_bytes: int) -> None:
    """Take all the pages of a new segment, then give it its size.

    Raises:
        SegmentFull: they are not there.
    """
    # ftruncate would succeed on a full /dev/shm and the first touch be a SIGBUS. posix_fallocate
    # takes all pages or none, and sets the size last: a segment with a size is a whole one.
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise full(descriptor, name, size_bytes) from error


def full(descriptor: int, name: str, size_bytes: int) -> SegmentFull:
    """The error of a segment for which there is no room, with what room there is."""
    if name == UNNAMED:
        return SegmentFull(name, size_bytes, _free_memory_bytes() or 0, "of memory")
    status = os.fstatvfs(descriptor)
    return SegmentFull(name, size_bytes, status.f_bavail * status.f_frsize)


def _create_unlinked(name: str, size_bytes: int) -> Segment:
    descriptor = open_new(name, size_bytes)
    try:
        posix_ipc.unlink_shared_memory(name)
        reserve(descriptor, name, size_bytes)
        return mapped(descriptor, UNNAMED, size_bytes)
    finally:
        os.close(descriptor)


def _create_sealed(size_bytes: int) -> Segment:
    if size_bytes < 1:
        raise ValueError(f"segment {UNNAMED}: {size_bytes} bytes, expected 1 or more")
    # Such files have no limit of their own: without this the kernel would kill for what is not
    # there.
    free_bytes = _free_memory_bytes()
    if free_bytes is not None and size_bytes > free_bytes:
        raise SegmentFull(UNNAMED, size_bytes, free_bytes, "of memory")
    descriptor = os.memfd_create("lockstep", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        reserve(descriptor, UNNAMED, size_bytes)  # Before the seals, which forbid it.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return mapped(descriptor, UNNAMED, size_bytes)
    finally:
        os.close(descriptor)


def _free_memory_bytes() -> int | None:
    """Memory and swap that can be had; None where nobody says so."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    fields = {key: int(rest.split()[0]) << 10 for key, _, rest in (x.partition(":") for x in lines)}
    if "MemAvailable" not in fields:
        return None
    return fields["MemAvailable"] + fields.get("SwapFree", 0)


def mapped(descriptor: int, name: str, size_bytes: int, inherited: bool = True) -> Segment:
    """The segment behind a descriptor, which the caller closes."""
    mapping, kept = _map_detached(descriptor, size_bytes)
    return Segment(name, mapping, (kept,), inherited)


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
