"""Slab file: the KV slab of a model in memory that outlives the process that fills it.

The supervisor makes an empty file in memory before the fork and keeps it open; it never maps it
and need not know its size. The inference process gives it its size once the model is read, and
maps it. Dies that process, the next one gets the same descriptor and finds every key and value
where it was. Such a file lies in no file system: /dev/shm may be as small as it likes. Nothing is
touched before it is used.

Its first page is not the slab's: it begins with one word, how far a step's copies came
(workers/inference/copies.py).
"""

import mmap
import os
from collections.abc import Mapping

from lockstep.engine.errors import UsageError
from lockstep.workers.room import free_memory, size_text

HEAD_BYTES = 4096
NONE = -1  # In place of a descriptor: no such memory here; keys and values die with the process.


def create(name: str) -> int:
    """A descriptor of a new, empty file in memory, or `NONE` where the system has none."""
    if not hasattr(os, "memfd_create"):
        return NONE
    return os.memfd_create(f"lockstep-kv-{name}"[:200], os.MFD_CLOEXEC)


def none(name: str) -> int:
    """`NONE`, as `create` of a system that has none."""
    return NONE


def mapped(descriptor: int, slab_bytes: int, arithmetic: str = "") -> tuple[memoryview, memoryview]:
    """The word and the bytes of a slab, zero if they are new. The mapping goes with the last view.

    Args:
        descriptor: Of `create`; may be closed afterwards.
        slab_bytes: What the slab needs; the same whenever the file is mapped.
        arithmetic: Where that comes from, for people.

    Returns:
        A view of one u64, and one of ``slab_bytes`` bytes, page-aligned.

    Raises:
        UsageError: the machine does not have so much memory.
    """
    size_bytes = HEAD_BYTES + slab_bytes
    new = os.fstat(descriptor).st_size != size_bytes
    needs = f"the KV slots need {size_bytes} bytes of memory{arithmetic}"
    if new:
        _check(size_bytes, needs)
    try:
        if new:
            os.ftruncate(descriptor, size_bytes)
        whole = memoryview(mmap.mmap(descriptor, size_bytes))
    except OSError as error:
        raise UsageError(f"{needs}: {error.strerror}") from None
    return whole[:8].cast("Q"), whole[HEAD_BYTES:]


def _check(size_bytes: int, needs: str) -> None:
    """Pages come when they are first written: what cannot be had then kills the process."""
    free_bytes, where = free_memory()
    if free_bytes is not None and size_bytes > free_bytes:
        raise UsageError(
            f"{needs}, there are {free_bytes} bytes ({where}); a smaller `rows_max`, "
            "`rows_kept` or `tokens_max` needs less"
        )


def check_together(slabs: Mapping[str, int], agents_bytes: int) -> None:
    """Refuse slots that there is memory for one by one, and not for all of them and the agents.

    Free memory knows of the weights that are loaded, and not yet of slots that nobody has written
    to, nor of agents that have not started.

    Args:
        slabs: Bytes of slots that nobody has written to, by model.
        agents_bytes: What the agents will need.

    Raises:
        UsageError: the machine does not have so much memory.
    """
    free_bytes, where = free_memory()
    needed = sum(slabs.values()) + agents_bytes
    if free_bytes is not None and needed > free_bytes:
        parts = [f"{name} {size_text(size)}" for name, size in slabs.items()]
        raise UsageError(
            f"the KV slots so far and the agents need {size_text(needed)} of memory "
            f"({' + '.join(parts)} + agents {size_text(agents_bytes)}), there are "
            f"{size_text(free_bytes)} beside the weights ({where}); a smaller `rows_max`, "
            "`rows_kept` or `tokens_max` of some models, or fewer agents, need less"
        )
