"""Claim: room for one record in a ring, filled where it lies: claim, fill, publish.

For records that are large or come in parts: a payload that somebody else has need not be joined to
its header first. Until it is published the reader sees nothing of it, and a writer that is killed
meanwhile has written nothing.
"""

from lockstep.shm.errors import RingFull
from lockstep.shm.ring import RingWriter
from lockstep.shm.walk import ALIGN, KIND_PADDING, PREFIX, RECORD_BYTES_MIN, aligned


class Claim:
    """Use as a context: leaving it publishes, leaving it by an exception gives it up.

    While it is open the ring takes nothing else. Ring the doorbell afterwards, as after a push.

    Args:
        writer: Open, without another claim.
        size: Of the record, its header with it.
    """

    def __init__(self, writer: RingWriter, size: int) -> None:
        self._writer = writer
        self._side = writer.side
        self._size = size
        self._start = self._head = 0
        self._room: memoryview | None = None

    def __enter__(self) -> memoryview:
        """Room for the record, ``size`` bytes, not cleared; valid until the context is left.

        Raises:
            RingFull: no room now.
            ValueError: more than half the capacity, or less than a header.
        """
        side, step = self._side, aligned(self._size)
        side.check()
        if not RECORD_BYTES_MIN <= self._size <= step <= side.capacity // 2:
            raise ValueError(
                f"{side.label}: a record of {self._size} bytes, expected {RECORD_BYTES_MIN} to "
                f"{side.capacity // 2}"
            )
        room, position = side.room(), side.at & (side.capacity - 1)
        gap = side.capacity - position if position + step > side.capacity else 0
        if gap + step > room:
            raise RingFull(f"{side.label}: no room for {step} bytes; the reader drains first")
        if gap:
            PREFIX.pack_into(side.data, position, gap, KIND_PADDING)
            position = 0
        side.data[position + step - ALIGN : position + step] = bytes(ALIGN)  # Zeros behind it.
        self._start, self._head = position, side.at + gap + step
        side.simple, side.claimed = False, True
        self._room = side.data[position : position + self._size]
        return self._room

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        """Publish, unless the context is left by an exception.

        Raises:
            ValueError: what was filled in is not one record of the size that was claimed; nothing
                was published.
            RingClosed: the writer was closed meanwhile; likewise.
        """
        side = self._side
        side.claimed = False
        side.resume()
        if self._room is not None:
            self._room.release()
        if failed is not None:
            return
        side.check()  # It may have been closed meanwhile.
        size, kind = PREFIX.unpack_from(side.data, self._start)
        if size != self._size or kind == KIND_PADDING:
            raise ValueError(
                f"{side.label}: size {size} and kind {kind} were filled in, expected "
                f"{self._size} and a kind below {KIND_PADDING}; nothing was published"
            )
        self._writer.note(1, aligned(size))
        side.publish(self._head)
