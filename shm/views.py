"""Views: the records of a ring as views of one private buffer that is used again and again.

A new bytes object for each drain costs little while it is small. Large ones come from the end of
the heap, which the allocator gives back to the system and fetches again, page by page: draining
64 KiB records so was measured at 15 times this. What is in the buffer is a private copy, judged
after it was made, as with every other way to take records from a ring.
"""

from lockstep.shm.ring import RingReader
from lockstep.shm.walk import (
    ALIGN,
    KIND_PADDING,
    PREFIX,
    RECORD_BYTES_MIN,
    RUN_FIRST,
    RUN_MIN,
    run,
)


class RingViews:
    """Beside the reader that it is made of, and as long as that is open.

    Args:
        reader: May be used in between; what it takes does not come here.
        buffer_bytes: At most so much is taken at once: half the capacity (None), the least that
            any record fits into, leaves the writer the other half to go on with.
    """

    def __init__(self, reader: RingReader, buffer_bytes: int | None = None) -> None:
        side = reader.side
        size = max(side.capacity // 2, (buffer_bytes or 0) // ALIGN * ALIGN)
        self._reader = reader
        self._side = side
        self._buffer = memoryview(bytearray(min(size, side.capacity)))

    def take(self) -> list[memoryview]:
        """Take records in order, as many as fit; none only if there is none.

        Returns:
            A view for each, without the zeros behind it, readable until the next call: then the
            same memory holds others. Call again until nothing comes, then wait.

        Raises:
            RingCorrupt: as `RingReader.take`.
        """
        side = self._side
        if not side.simple:
            side.check()
        while ready := side.ready():
            position = side.at & (side.capacity - 1)
            gap = side.capacity - position
            if PREFIX.unpack_from(side.data, position) == (gap, KIND_PADDING) and gap <= ready:
                side.publish(side.at + gap)
                continue
            size = min(ready, gap, len(self._buffer))
            # Copied before any size is looked at: the peer can still write here, not there.
            self._buffer[:size] = side.data[position : position + size]
            views, used = self._cut(size)
            if not views:  # Any legal record fits. This one is not, and is refused here.
                _, used, _ = self._reader.judge(bytes(self._buffer[:size]), position, size)
            self._reader.note(len(views), used if views else 0)
            side.publish(side.at + used)
            if views:
                return views
        return []

    def _cut(self, size: int) -> tuple[list[memoryview], int]:
        """Whole records in the first ``size`` bytes of the buffer; how far they reach."""
        buffer, unpack, largest = self._buffer, PREFIX.unpack_from, self._side.capacity // 2
        views: list[memoryview] = []
        offset = previous = try_from = 0  # As in `walk`: runs of equal records go faster.
        while offset < size:
            length, kind = unpack(buffer, offset)
            stop = offset + length
            after = stop + 7 & ~7
            if not RECORD_BYTES_MIN <= length <= largest or kind == KIND_PADDING or after > size:
                break
            step = after - offset
            if length == previous and offset >= try_from and size - offset >= RUN_MIN * step:
                after = offset + run(buffer, offset, size, step) * step
                views += [buffer[at : at + length] for at in range(offset, after, step)]
                try_from = offset + RUN_FIRST * step
            else:
                views.append(buffer[offset:stop])
            previous, offset = length, after
        return views, offset
