"""Slots: a ring of fixed numpy-structured slots, pushed and drained as vectors.

The ticket and result rings of the inference process. The header, the cursors and the distrust are
those of the byte ring; cursors count slots. What is in a slot is for the reader to judge, on the
private copy it gets.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lockstep.shm import header
from lockstep.shm.cursor import Memory
from lockstep.shm.header import HEADER_BYTES, MAGIC_SLOTS
from lockstep.shm.side import Consumer, Producer, RingStatistics

SlotArray: TypeAlias = npt.NDArray[Any]


def slots_bytes(capacity: int, dtype: np.dtype[Any]) -> int:
    """Bytes of memory for a ring of ``capacity`` slots, a power of two."""
    if capacity < 1 or capacity & (capacity - 1):
        raise ValueError(f"capacity is {capacity} slots, expected a power of two")
    return HEADER_BYTES + capacity * dtype.itemsize


def create(memory: Memory, dtype: np.dtype[Any]) -> int:
    """Lay an empty ring of slots over ``memory`` and return its capacity in slots.

    The capacity is the largest power of two that fits behind the header.

    Raises:
        ValueError: no room for one slot, or the dtype holds Python objects or nothing.
    """
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"slots of {dtype}: expected plain data, fixed in size")
    capacity = header.power_of_two_within((len(memory) - HEADER_BYTES) // dtype.itemsize)
    if not capacity:
        least = HEADER_BYTES + dtype.itemsize
        raise ValueError(f"slots: {len(memory)} bytes of memory, expected {least} or more")
    header.initialise(memory, MAGIC_SLOTS, capacity, dtype.itemsize)
    return capacity


class SlotWriter:
    """The writing side. Holds views of the memory until `close`.

    Args:
        memory: Initialised by `create` with the same dtype.
        dtype: Of one slot.
        label: Names the ring in errors.

    Raises:
        RingCorrupt: as in `RingWriter`.
    """

    def __init__(self, memory: Memory, dtype: np.dtype[Any], label: str = "slots") -> None:
        self._side = Producer(memory, MAGIC_SLOTS, label, slot_bytes=dtype.itemsize)
        self._slots: SlotArray = np.ndarray(self._side.capacity, dtype, self._side.data)
        self._dtype = dtype
        self._count = self._times_full = 0

    @property
    def capacity(self) -> int:
        """Slots."""
        return self._side.capacity

    @property
    def statistics(self) -> RingStatistics:
        """Counters so far; also after `close`."""
        return RingStatistics(self._count, self._count * self._dtype.itemsize, self._times_full)

    def push(self, array: SlotArray) -> int:
        """Write as many slots as fit and publish them at once. Then ring the doorbell.

        Args:
            array: One-dimensional, of exactly the ring's dtype.

        Returns:
            How many were taken, from the front; 0 if the ring is full.

        Raises:
            ValueError: another shape or dtype; nothing was written.
        """
        side = self._side
        side.check()
        if array.ndim != 1 or array.dtype != self._dtype:
            raise ValueError(
                f"{side.label}: {array.ndim} dimensions of {array.dtype}, expected 1 of "
                f"{self._dtype}"
            )
        count = min(side.room(), len(array))  # Claim.
        position = side.at & (side.capacity - 1)
        first = min(count, side.capacity - position)
        self._slots[position : position + first] = array[:first]  # Fill.
        if count > first:
            self._slots[: count - first] = array[first:count]
        self._times_full += count < len(array)
        if count:
            self._count += count
            side.publish(side.at + count)
        return count

    def announce(self, *, waiting: bool = False) -> None:
        """As `RingWriter.announce`."""
        self._side.announce(waiting)

    def close(self) -> None:
        """Give the memory back; every later push raises RingClosed. Idempotent."""
        self._slots = np.empty(0, self._dtype)
        self._side.close()


class SlotReader:
    """The reading side. Holds views of the memory until `close`.

    Args and errors as in `SlotWriter`.
    """

    def __init__(self, memory: Memory, dtype: np.dtype[Any], label: str = "slots") -> None:
        self._side = Consumer(memory, MAGIC_SLOTS, label, slot_bytes=dtype.itemsize)
        self._slots: SlotArray = np.ndarray(self._side.capacity, dtype, self._side.data)
        self._dtype = dtype
        self._count = 0

    @property
    def capacity(self) -> int:
        """Slots."""
        return self._side.capacity

    @property
    def statistics(self) -> RingStatistics:
        """Counters so far; also after `close`."""
        return RingStatistics(self._count, self._count * self._dtype.itemsize)

    def drain(self) -> SlotArray:
        """Take all slots, in order: a private copy of shape (n,), n may be 0.

        Raises:
            RingCorrupt: the head makes no sense; the ring stays as it is.
        """
        side = self._side
        side.check()
        count = side.ready()
        position = side.at & (side.capacity - 1)
        first = min(count, side.capacity - position)
        taken = np.empty(count, self._dtype)
        taken[:first] = self._slots[position : position + first]
        if count > first:
            taken[first:] = self._slots[: count - first]
        if count:
            self._count += count
            side.publish(side.at + count)
        return taken

    def awaited(self) -> bool:
        """As `RingReader.awaited`."""
        return self._side.awaited()

    def close(self) -> None:
        """Give the memory back; every later drain raises RingClosed. Idempotent."""
        self._slots = np.empty(0, self._dtype)
        self._side.close()
