"""Cursor: one 64-bit word in shared memory that one process writes and another reads.

With a doorbell it stands in for SharedArrayBuffer + Atomics: `load`, `store`, `wait`, `notify`.
Each word has exactly one writer; there is no compare-and-swap and no lock that a killed process
could hold.
"""

import platform
import threading
import time
from mmap import mmap
from typing import TypeAlias

import numpy as np

from lockstep.shm.doorbell import Doorbell

Memory: TypeAlias = memoryview | bytearray | mmap

WORD_BYTES = 8

# Why this is safe, and where it would not be.
#
# Tearing. An item of `memoryview.cast("Q")` is loaded and stored as one aligned, native 8-byte
# move, which x86-64 and aarch64 make indivisible (377 M reads, none torn). A big-endian format,
# a word across a cache line or a slice assignment may tear: so the address is checked below.
#
# The compiler. Each load and store is a bytecode of its own behind opaque calls; nothing is
# hoisted, merged or moved across another.
#
# x86-64. Stores become visible in program order and loads are done in program order, so "payload,
# then head" here and "head, then payload" there need no fence. Fast string moves inside one
# memcpy may reorder among themselves, but a plain store behind them does not overtake them (Intel
# SDM 3A, "write to a discrete semaphore variable after any string operations"); glibc ends
# its non-temporal copies by sfence. One order is NOT kept: my store may be delayed beyond my next
# load of another word. This loses wake-ups when a "someone is waiting" flag is tested after
# publishing (670 of a million rounds of tests/shm/test_memory_order.py, from pure Python). So there
# is no such flag: each published batch is followed by a ring of the doorbell, always.
#
# aarch64. Stores may overtake stores and loads overtake loads. The doorbell orders what was
# published before it was rung: eventfd and pipe take a kernel lock on both sides, so a reader that
# has cleared the bell sees all of that. But a reader that drains for ring n may also meet the
# head of publish n+1, whose ring has not happened yet and whose payload may not have arrived. So
# a load has a fence behind it and a store a fence before it. Python offers no fence; passing a
# lock twice is one: nothing moves down past the first release, nothing up past the second
# acquire, and a release followed by an acquire keeps its order on aarch64 (RCsc). About 0.2 us,
# paid on weak CPUs only. Reasoned, not measured: no aarch64 machine was at hand.
STRONG = platform.machine() in {"x86_64", "AMD64"}
_TURNSTILE = threading.Lock()


def fence() -> None:
    """Keep all loads and stores before it ahead of all behind it (store-then-load excepted)."""
    if not STRONG:
        with _TURNSTILE:
            pass
        with _TURNSTILE:
            pass


def byte_view(memory: Memory) -> memoryview:
    """A new flat view of the bytes of ``memory``. Who takes it releases it."""
    return memoryview(memory).cast("B")


class Cursor:
    """One u64 word at ``memory[offset:offset + 8]``.

    Holds a view of the memory until `release`: the memory cannot be unmapped before.

    Attributes:
        word: The view, its one item the value. Who goes past `load` and `store` does what
            `fence` would.

    Raises:
        ValueError: the word is outside the memory, or its address is not a multiple of 8.
    """

    __slots__ = ("word",)

    def __init__(self, memory: Memory, offset: int) -> None:
        with byte_view(memory) as whole:
            if offset < 0 or offset + WORD_BYTES > len(whole):
                raise ValueError(f"cursor at byte {offset}: the memory has {len(whole)} bytes")
            address = np.frombuffer(whole, np.uint8).__array_interface__["data"][0] + offset
            if address % WORD_BYTES:
                raise ValueError(f"cursor at byte {offset}: address {address:#x} is not 8-aligned")
            with whole[offset : offset + WORD_BYTES] as part:
                self.word = part.cast("Q")

    def load(self) -> int:
        """The value; what its writer wrote before storing it is visible afterwards."""
        value = self.word[0]
        if not STRONG:
            fence()
        return value

    def store(self, value: int) -> None:
        """Set the value; all that was written before becomes visible first."""
        if not STRONG:
            fence()
        self.word[0] = value

    def wait(self, expected: int, bell: Doorbell, timeout_s: float | None = None) -> int:
        """Block while the value is ``expected``: Atomics.wait.

        Nothing can be missed, as the writer stores first and rings then, always: a store that this
        load has not seen yet is followed by a ring that ends the wait.

        Args:
            expected: What was seen last.
            bell: Waited for. Its rings may mean other words, too: so the value is looked at again.
            timeout_s: Seconds; None waits for ever.

        Returns:
            The value: ``expected`` only if the time ran out.

        Raises:
            PeerDied: the bell watches its ringer (`WatchedBell`), who is gone.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (value := self.load()) == expected:
            if deadline_s is None:
                bell.wait()
            elif not bell.wait(max(0.0, deadline_s - time.monotonic())):
                break
        return value

    def notify(self, value: int, bell: Doorbell) -> None:
        """`store`, then ring for who waits: Atomics.store and Atomics.notify."""
        self.store(value)
        bell.ring()

    def release(self) -> None:
        """Give the memory back; every later call raises ValueError."""
        self.word.release()
