"""Ring: records of any size from one process to one other, in order, none lost.

One writer, one reader, no lock. A full ring refuses; nothing is ever overwritten or dropped. The
reader copies first and judges the copy, so a peer that scribbles meanwhile is a `RingCorrupt` of
this ring or another valid record, never a crash.
"""

from typing import NamedTuple

from lockstep.shm import header
from lockstep.shm.cursor import Memory
from lockstep.shm.errors import RingFull
from lockstep.shm.header import HEADER_BYTES, MAGIC_RING
from lockstep.shm.side import Consumer, Producer, RingStatistics
from lockstep.shm.walk import (
    ALIGN,
    KIND_PADDING,
    PREFIX,
    RECORD_BYTES_MIN,
    Marks,
    aligned,
    walk,
)

CAPACITY_MIN = 2 * RECORD_BYTES_MIN
_ZEROS = bytes(ALIGN)


class Taken(NamedTuple):
    """What a reader took.

    Attributes:
        data: Aligned records one behind the other.
        count: How many.
        marks: Offset in ``data`` of each record of a marked kind, and its number among them.
    """

    data: bytes
    count: int  # type: ignore[assignment]
    marks: Marks


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
    wanted = max(CAPACITY_MIN, 2 * aligned(record_bytes_max))
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

    Attributes:
        side: Its cursors and bytes.

    Raises:
        RingCorrupt: the header or a cursor makes no sense. After any RingCorrupt each further
            call raises it again.
    """

    def __init__(self, memory: Memory, label: str = "ring") -> None:
        self.side = Producer(memory, MAGIC_RING, label, unit=ALIGN)
        self._records = self._bytes = self._times_full = 0

    @property
    def capacity(self) -> int:
        """Bytes of data; the largest record has half of it."""
        return self.side.capacity

    @property
    def statistics(self) -> RingStatistics:
        """Counters so far; also after `close`."""
        return RingStatistics(self._records, self._bytes, self._times_full)

    def push(self, record: bytes, body: bytes = b"") -> None:
        """Write one record and publish it. Ring the doorbell afterwards.

        Args:
            record: All of it, or its beginning, which need not be joined to the rest.
            body: The rest. Zeros are put behind it where they are missing.

        Raises:
            RingFull: no room now; nothing was written.
            ValueError: not exactly one record, or more than half the capacity.
        """
        side, length = self.side, len(record) + len(body)
        at, step = side.at, length + 7 & ~7
        position, head = at & (side.capacity - 1), at + step
        # While the tail that was seen last leaves room, the reader's line of memory is not touched.
        # No simple ring, the end of it, no room, no record in order: all that comes below.
        if (
            side.simple
            and len(record) >= RECORD_BYTES_MIN
            and step <= side.capacity >> 1
            and position + step <= side.capacity
            and (head - side.seen <= side.capacity or head - side.tail() <= side.capacity)
        ):
            size, kind = PREFIX.unpack_from(record)
            if RECORD_BYTES_MIN <= size <= length and size + 7 & ~7 == step and kind < KIND_PADDING:
                if step > length:
                    side.data[position + step - ALIGN : position + step] = _ZEROS
                middle = position + len(record)
                side.data[position:middle] = record
                if body:
                    side.data[middle : position + length] = body
                side.at = side.own.word[0] = head
                self._records += 1
                self._bytes += step
                return
        self._push_with_care(record + body + _ZEROS[: step - length], length)

    def _push_with_care(self, record: bytes, length: int) -> None:
        whole = record and self._size_at(record, 0) == len(record)
        if not whole or PREFIX.unpack_from(record)[0] > length:
            raise ValueError(f"{self.side.label}: {length} bytes are not one record")
        if not self.push_many(record):
            raise RingFull(
                f"{self.side.label}: no room for {len(record)} bytes; the reader drains first"
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
        side = self.side
        at, size, tail = side.at, len(records) - start, side.peer.word[0] if side.simple else -1
        position, head = at & (side.capacity - 1), at + size
        # Mostly there is room for all, in one piece. What is not so, or not in order, comes below.
        if (
            side.seen <= tail <= at
            and not tail % ALIGN
            and head - tail <= side.capacity >= position + size
        ):
            reached, count = walk(records, start, len(records), side.capacity // 2)
            if reached == len(records):
                side.data[position : position + size] = records[start:] if start else records
                side.seen, side.at, side.own.word[0] = tail, head, head
                self._records += count
                self._bytes += size
                return reached
        return self._push_pieces(records, start)

    def _push_pieces(self, records: bytes, start: int) -> int:
        """`push_many`: what fits, on both sides of the end."""
        side = self.side
        side.check()
        room, head, offset, count = side.room(), side.at, start, 0  # Claim.
        while offset < len(records):
            position = head & (side.capacity - 1)
            gap = side.capacity - position
            stop, taken = walk(
                records, offset, min(len(records), offset + gap, offset + room), side.capacity // 2
            )
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

    def announce(self, *, waiting: bool = False) -> None:
        """Count a ring of the doorbell, before it is rung, for a reader who looks by counters.

        Args:
            waiting: There was no room. The reader hears of it (`RingReader.awaited`) and rings
                when it has drained; without this word it need not.
        """
        self.side.announce(waiting)

    def note(self, records: int, data_bytes: int) -> None:
        """Count what somebody beside this writer has published (`Claim`)."""
        self._records += records
        self._bytes += data_bytes

    def close(self) -> None:
        """Give the memory back; every later push raises RingClosed. Idempotent."""
        self.side.close()

    def _size_at(self, records: bytes, offset: int) -> int:
        """Aligned size of our own record. The reader would give up the ring over a bad one."""
        left = len(records) - offset
        size, kind = PREFIX.unpack_from(records, offset) if left >= PREFIX.size else (0, 0)
        step = aligned(size)
        where = f"{self.side.label}: record at byte {offset}"
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
        mark_from: Records of this kind or a higher one are marked in what is taken.

    Attributes:
        side: Its cursors and bytes.

    Raises:
        RingCorrupt: the header or a cursor makes no sense. After any RingCorrupt each further
            call raises it again.
    """

    def __init__(self, memory: Memory, label: str = "ring", mark_from: int = KIND_PADDING) -> None:
        self.side = Consumer(memory, MAGIC_RING, label, unit=ALIGN)
        self._mark_from = mark_from
        self._records = self._bytes = 0

    @property
    def capacity(self) -> int:
        """Bytes of data."""
        return self.side.capacity

    @property
    def statistics(self) -> RingStatistics:
        """Counters so far; also after `close`."""
        return RingStatistics(self._records, self._bytes)

    def drain(self, bytes_max: int | None = None) -> bytes:
        """As `take`, the records alone."""
        side = self.side
        if side.simple and side.peer.word[0] == side.at == side.seen:
            return b""
        return self.take(bytes_max).data

    def pop(self) -> bytes:
        """Take one record, as it was pushed; nothing if there is none. Errors as `take`."""
        side = self.side
        if not side.simple:
            side.check()
        at = side.at
        if ready := side.ready():
            position = at & (side.capacity - 1)
            # The size in the ring says how much to copy, no more: the copy is judged.
            (size, _) = PREFIX.unpack_from(side.data, position)
            record = side.data[position : position + (size + 7 & ~7)].tobytes()
            step = len(record)
            if RECORD_BYTES_MIN <= step <= ready and step <= side.capacity >> 1:
                size, kind = PREFIX.unpack_from(record)
                if size >= RECORD_BYTES_MIN and size + 7 & ~7 == step and kind != KIND_PADDING:
                    self._records += 1
                    self._bytes += step
                    side.publish(at + step)
                    return record
        return self.take(1).data

    def note(self, records: int, data_bytes: int) -> None:
        """Count what somebody beside this reader has taken (`views`)."""
        self._records += records
        self._bytes += data_bytes

    def take(self, bytes_max: int | None = None) -> Taken:
        """Take whole records, in order. If the writer may wait for room, ring its doorbell then.

        Args:
            bytes_max: Take no more than this, but one record at least if there is one, so that
                no limit can block the ring. None takes all.

        Returns:
            Records, perhaps none. Their sizes were checked, nothing else.

        Raises:
            RingCorrupt: the head or a size makes no sense; the ring stays as it is.
        """
        side = self.side
        at, head = side.at, side.peer.word[0] if side.simple else -1
        marks: Marks = []
        position, ready = at & (side.capacity - 1), head - at
        # Mostly all that is there lies in one piece. What is not so, or not in order, comes below.
        if side.seen <= head and 0 < ready <= side.capacity - position and bytes_max is None:
            data = side.data[position : position + ready].tobytes()
            reached, count = walk(data, 0, ready, side.capacity // 2, marks, self._mark_from)
            if reached == ready:
                self._records += count
                self._bytes += ready
                side.seen, side.at, side.own.word[0] = head, head, head
                return tuple.__new__(Taken, (data, count, marks))
        return self._take_pieces(bytes_max)

    def _take_pieces(self, bytes_max: int | None) -> Taken:
        """`take`: what lies on both sides of the end, up to a limit or to what is not in order."""
        side = self.side
        side.check()
        ready, tail = side.ready(), side.at
        marks: Marks = []
        if not ready:
            return Taken(b"", 0, marks)
        # Copied before any size is looked at: the peer can still write here, not there.
        position = tail & (side.capacity - 1)
        upper = bytes(side.data[position : min(position + ready, side.capacity)])
        limit = ready if bytes_max is None else bytes_max
        kept, used, count = self.judge(upper, position, limit, 0, marks)
        taken = upper if kept == len(upper) else upper[:kept]
        if used == len(upper) < ready:
            lower = bytes(side.data[: ready - used])
            below: Marks = []
            kept, more, count = self.judge(lower, 0, limit - kept, count, below)
            marks += [(offset + len(taken), number) for offset, number in below]
            taken, used = taken + lower[:kept], used + more
        self._records += count
        self._bytes += len(taken)
        side.publish(tail + used)
        return Taken(taken, count, marks)

    def awaited(self) -> bool:
        """Whether the writer has said, since it was asked last, that it waits for room."""
        return self.side.awaited()

    def close(self) -> None:
        """Give the memory back; every later drain raises RingClosed. Idempotent."""
        self.side.close()

    def judge(
        self, data: bytes, position: int, limit: int, before: int = 0, marks: Marks | None = None
    ) -> tuple[int, int, int]:
        """Check the sizes in a private copy of what lies at ``position``.

        Returns:
            Bytes of records within ``limit``, bytes used up (with padding), records so far.
        """
        size_max, mark_from = self.capacity // 2, self._mark_from
        stop = min(len(data), limit)
        offset, count = walk(data, 0, stop, size_max, marks, mark_from, before)
        if offset == len(data):
            return offset, offset, count
        size, kind = PREFIX.unpack_from(data, offset)
        left, at = len(data) - offset, position + offset
        if kind == KIND_PADDING:
            if size != left or position + len(data) != self.capacity:
                self.side.poison(f"padding at {at}: size is {size}, expected {self.capacity - at}")
            return offset, len(data), count
        most = min(left, size_max)
        if size < RECORD_BYTES_MIN or aligned(size) > most:
            self.side.poison(
                f"record at {at}: size is {size}, expected {RECORD_BYTES_MIN} to {most}"
            )
        if count == 0:  # In order and larger than the limit: one is taken all the same.
            offset, count = walk(data, 0, aligned(size), size_max, marks, mark_from)
        return offset, offset, count
