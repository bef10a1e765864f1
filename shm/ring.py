"""Ring: records of any size from one process to one other, in order, none lost.

One writer, one reader, no lock. A full ring refuses; nothing is ever overwritten or dropped. The
reader copies first and judges the copy, so a peer that scribbles meanwhile is a `RingCorrupt` of
this ring or another valid record, never a crash.
"""

import struct
from dataclasses import dataclass

from lockstep.shm import header
from lockstep.shm.cursor import Memory
from lockstep.shm.errors import RingFull
from lockstep.shm.header import HEADER_BYTES, MAGIC_RING
from lockstep.shm.side import Consumer, Producer

# Data of a ring: records one behind the other, each at a multiple of 8, none across the end. Of a
# record this layer reads the first two fields only (engine/record.py draws the rest):
#
#   0            4          6          size     multiple of 8
#   +------------+----------+-- .... --+----------+
#   | size  u32  | kind u16 |   rest   | zeros    |
#   +------------+----------+-- .... --+----------+
#
# What a record does not fill before the end is one padding record, kind 0xFFFF, whose size reaches
# the end exactly. All is 8-aligned, so the gap is 8 at least and those six bytes always fit.
PREFIX = struct.Struct("<IH")
ALIGN = 8
KIND_PADDING = 0xFFFF
RECORD_BYTES_MIN = 32  # A record's own header.
CAPACITY_MIN = 2 * RECORD_BYTES_MIN


@dataclass(frozen=True)
class RingStatistics:
    """What one side did so far.

    Attributes:
        records: Records (slots) pushed or drained.
        bytes: Their bytes with alignment, without padding records.
        times_full: Calls that could not push all they were given; 0 at a reader.
    """

    records: int = 0
    bytes: int = 0
    times_full: int = 0


def ring_bytes(capacity: int) -> int:
    """Bytes of memory for a ring of ``capacity`` bytes of data, a power of two from 64 up."""
    if capacity < CAPACITY_MIN or capacity & (capacity - 1):
        raise ValueError(f"capacity is {capacity}, expected a power of two from {CAPACITY_MIN} up")
    return HEADER_BYTES + capacity


def capacity_for(record_bytes_max: int) -> int:
    """The smallest capacity in which a record of so many bytes always finds room in the end.

    Twice the record: when the place before the end is too short by one, padding takes less than
    a record and the record fits behind it.
    """
    wanted = max(CAPACITY_MIN, 2 * _aligned(record_bytes_max))
    return 1 << (wanted - 1).bit_length()


def create(memory: Memory) -> int:
    """Lay an empty ring over ``memory`` and return its capacity in bytes.

    The capacity is the largest power of two that fits behind the header (`ring_bytes` wastes
    nothing). Done by the creator, before either side opens it.

    Raises:
        ValueError: less memory than the header and 64 bytes.
    """
    capacity = header.power_of_two_within(len(memory) - HEADER_BYTES)
    if capacity < CAPACITY_MIN:
        least = HEADER_BYTES + CAPACITY_MIN
        raise ValueError(f"ring: {len(memory)} bytes of memory, expected {least} or more")
    header.initialise(memory, MAGIC_RING, capacity, slot_bytes=0)
    return capacity


class RingWriter:
    """The writing side. Holds views of the memory until `close`.

    Args:
        memory: Initialised by `create`.
        label: Names the ring in errors.

    Raises:
        RingCorrupt: the header or a cursor makes no sense. After any RingCorrupt each further
            call raises it again.
    """

    def __init__(self, memory: Memory, label: str = "ring") -> None:
        self._side = Producer(memory, MAGIC_RING, label, unit=ALIGN)
        self._records = self._bytes = self._times_full = 0

    @property
    def capacity(self) -> int:
        """Bytes of data; the largest record has half of it."""
        return self._side.capacity

    @property
    def statistics(self) -> RingStatistics:
        """Counters so far; also after `close`."""
        return RingStatistics(self._records, self._bytes, self._times_full)

    def push(self, record: bytes) -> None:
        """Write one record and publish it. Ring the doorbell afterwards.

        Raises:
            RingFull: no room now; nothing was written.
            ValueError: not exactly one aligned record, or more than half the capacity.
        """
        if not record or self._size_at(record, 0) != len(record):
            raise ValueError(f"{self._side.label}: {len(record)} bytes are not one aligned record")
        if not self.push_many(record):
            raise RingFull(
                f"{self._side.label}: no room for {len(record)} bytes; the reader drains first"
            )

    def push_many(self, records: bytes, start: int = 0) -> int:
        """Write as many whole records as fit and publish them at once. Then ring the doorbell.

        Args:
            records: Aligned records one behind the other.
            start: Offset of the first one to write.

        Returns:
            The offset behind the last record written: ``start`` if none fitted, the length of
            ``records`` if all did.

        Raises:
            ValueError: a record among those looked at is malformed or has more than half the
                capacity. None of this call was published.
        """
        side = self._side
        side.check()
        room, head, offset, count = side.room(), side.at, start, 0  # Claim.
        while offset < len(records):
            position = head & (side.capacity - 1)
            gap = side.capacity - position
            stop, taken = self._span(records, offset, min(gap, room))
            if taken:  # Fill.
                side.data[position : position + stop - offset] = records[offset:stop]
                used = stop - offset
            elif gap < self._size_at(records, offset) <= room - gap:
                PREFIX.pack_into(side.data, position, gap, KIND_PADDING)
                used = gap
            else:
                break
            head, room, offset, count = head + used, room - used, stop, count + taken
        self._times_full += offset < len(records)
        if count:
            self._records += count
            self._bytes += offset - start
            side.publish(head)
        return offset

    def close(self) -> None:
        """Give the memory back; every later push raises RingClosed. Idempotent."""
        self._side.close()

    def _span(self, records: bytes, start: int, limit: int) -> tuple[int, int]:
        """End and number of the whole records from ``start`` on within ``limit`` bytes."""
        stop, count = start, 0
        while stop < len(records):
            after = stop + self._size_at(records, stop)
            if after - start > limit:
                break
            stop, count = after, count + 1
        return stop, count

    def _size_at(self, records: bytes, offset: int) -> int:
        """Aligned size of our own record. The reader would give up the ring over a bad one."""
        left = len(records) - offset
        size, kind = PREFIX.unpack_from(records, offset) if left >= PREFIX.size else (0, 0)
        step = _aligned(size)
        where = f"{self._side.label}: record at byte {offset}"
        if size < RECORD_BYTES_MIN or step > left or kind == KIND_PADDING:
            raise ValueError(
                f"{where}: size {size} and kind {kind}, expected {RECORD_BYTES_MIN} to {left} "
                f"bytes with alignment and a kind below {KIND_PADDING}"
            )
        if step > self.capacity // 2:
            raise ValueError(
                f"{where}: {step} bytes, the largest for this ring is {self.capacity // 2}"
            )
        return step


class RingReader:
    """The reading side. Holds views of the memory until `close`.

    Args:
        memory: Initialised by `create`.
        label: Names the ring in errors.

    Raises:
        RingCorrupt: the header or a cursor makes no sense. After any RingCorrupt each further
            call raises it again.
    """

    def __init__(self, memory: Memory, label: str = "ring") -> None:
        self._side = Consumer(memory, MAGIC_RING, label, unit=ALIGN)
        self._records = self._bytes = 0

    @property
    def capacity(self) -> int:
        """Bytes of data."""
        return self._side.capacity

    @property
    def statistics(self) -> RingStatistics:
        """Counters so far; also after `close`."""
        return RingStatistics(self._records, self._bytes)

    def drain(self, bytes_max: int | None = None) -> bytes:
        """Take whole records, in order. If the writer may wait for room, ring its doorbell then.

        Args:
            bytes_max: Take no more than this, but one record at least if there is one, so that
                no limit can block the ring. None takes all.

        Returns:
            Aligned records one behind the other; empty if there are none. Their sizes were
            checked, nothing else.

        Raises:
            RingCorrupt: the head or a size makes no sense; the ring stays as it is.
        """
        side = self._side
        side.check()
        ready, tail = side.ready(), side.at
        if not ready:
            return b""
        # Copied before any size is looked at: the peer can still write here, not there.
        position = tail & (side.capacity - 1)
        upper = bytes(side.data[position : min(position + ready, side.capacity)])
        lower = bytes(side.data[: ready - len(upper)])
        limit = ready if bytes_max is None else bytes_max
        kept, used, count = self._judge(upper, position, limit, 0)
        taken = upper[:kept]
        if used == len(upper) and lower:
            kept, more, found = self._judge(lower, 0, limit - kept, count)
            taken, used, count = taken + lower[:kept], used + more, count + found
        self._records += count
        self._bytes += len(taken)
        side.publish(tail + used)
        return taken

    def close(self) -> None:
        """Give the memory back; every later drain raises RingClosed. Idempotent."""
        self._side.close()

    def _judge(self, data: bytes, position: int, limit: int, before: int) -> tuple[int, int, int]:
        """Check the sizes in a private copy of what lies at ``position``.

        Returns:
            Bytes of records within ``limit``, bytes used up (with padding), records.
        """
        offset = count = 0
        while offset < len(data):
            left = len(data) - offset
            size, kind = PREFIX.unpack_from(data, offset)
            if kind == KIND_PADDING:
                if size != left or position + len(data) != self.capacity:
                    gap = self.capacity - position - offset
                    self._side.poison(
                        f"padding at {position + offset}: size is {size}, expected {gap}"
                    )
                return offset, len(data), count
            step = _aligned(size)
            most = min(left, self.capacity // 2)
            if size < RECORD_BYTES_MIN or step > most:
                self._side.poison(
                    f"record at {position + offset}: size is {size}, expected "
                    f"{RECORD_BYTES_MIN} to {most}"
                )
            if offset + step > limit and before + count:
                break
            offset, count = offset + step, count + 1
        return offset, offset, count


def _aligned(size: int) -> int:
    return (size + ALIGN - 1) & ~(ALIGN - 1)
