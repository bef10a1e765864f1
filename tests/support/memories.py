"""Kinds of memory that rings and cursors may lie in: the conformance suite runs over all of them.

Each is a context that gives a zeroed, writable buffer of exactly so many bytes; nothing of it is
left afterwards. What shares memory with a forked child is in `SHARED`.
"""

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.shared_memory import SharedMemory

from lockstep import shm
from lockstep.shm import Memory

F_ADD_SEALS = 1033  # linux/fcntl.h; in Python's fcntl from 3.12 on, as are the seals.
SEALS = 0x0001 | 0x0002 | 0x0004  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW.


@contextmanager
def plain(size: int) -> Iterator[Memory]:
    """A bytearray: memory of one process."""
    yield bytearray(size)


@contextmanager
def unnamed(size: int) -> Iterator[Memory]:
    """A slice of an arena, as the product has it."""
    arena = shm.Arena.create([size])
    yield arena.slice(0)
    arena.close()


@contextmanager
def named(size: int) -> Iterator[Memory]:
    """POSIX shared memory with a name, as the board has it."""
    segment = shm.create(shm.next_name(), size)
    try:
        yield segment.memory
        segment.close()
    finally:
        segment.unlink()


@contextmanager
def sealed(size: int) -> Iterator[Memory]:
    """A memfd that nobody can shrink or grow any more."""
    descriptor = os.memfd_create("lockstep-test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.posix_fallocate(descriptor, 0, size)
    fcntl.fcntl(descriptor, F_ADD_SEALS, SEALS)
    with mmap.mmap(descriptor, size) as mapping:
        os.close(descriptor)
        with memoryview(mapping) as view:
            yield view


@contextmanager
def stdlib(size: int) -> Iterator[Memory]:
    """multiprocessing.shared_memory: what there is where POSIX is not."""
    segment = SharedMemory(create=True, size=size)
    try:
        with segment.buf[:size] as view:
            yield view
        segment.close()
    finally:
        segment.unlink()


Maker = Callable[[int], AbstractContextManager[Memory]]

SHARED: dict[str, Maker] = {
    "arena": unnamed,
    "named segment": named,
    "sealed memfd": sealed,
    "multiprocessing": stdlib,
}
KINDS: dict[str, Maker] = {"bytearray": plain, **SHARED}
