"""Kinds of memory that rings and cursors may lie in: the conformance suite runs over all of them.

Each is a context that gives a zeroed, writable buffer of exactly so many bytes; nothing of it is
left afterwards. What shares memory with a forked child is in `SHARED`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest

from lockstep import shm
from lockstep.shm import Memory


def ours() -> set[Path]:
    """What of this process is in /dev/shm now; others come and go there."""
    return set(Path("/dev/shm").glob(f"*-{os.getpid()}-*"))


@contextmanager
def plain(size: int) -> Iterator[Memory]:
    """A bytearray: memory of one process."""
    yield bytearray(size)


@contextmanager
def sealed(size: int) -> Iterator[Memory]:
    """A slice of an arena as Linux has it: a memfd that nobody can shrink or grow."""
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
def portable(size: int) -> Iterator[Memory]:
    """A slice as other systems have it: a segment of its own, with a name."""
    platform = shm.platform_of("portable")
    arena = platform.arena([size])
    yield arena.slice(0)
    arena.close()
    platform.close()


@contextmanager
def stdlib(size: int) -> Iterator[Memory]:
    """multiprocessing.shared_memory: what there is where POSIX is not.

    Untracked: the tracker is a child process that would stay, and other tests count children.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("register", "unregister"):
            patch.setattr(resource_tracker, name, lambda *_: None)
        segment = SharedMemory(create=True, size=size)
        try:
            with segment.buf[:size] as view:
                yield view
            segment.close()
        finally:
            segment.unlink()


Maker = Callable[[int], AbstractContextManager[Memory]]

SHARED: dict[str, Maker] = {
    "sealed memfd": sealed,
    "named segment": named,
    "portable": portable,
    "multiprocessing": stdlib,
}
KINDS: dict[str, Maker] = {"bytearray": plain, **SHARED}
