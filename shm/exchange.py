"""Exchange: one side of two rings with their bells, for who sends and then waits for what comes.

What `RingWriter`, `Doorbell` and `RingReader` do one after the other is done here in a straight
line, as long as it is simple: there is room in one piece, what comes lies in one piece and in
order. A process that has slept pays for every line of memory that it touches, and half of an
exchange is that. Nothing is trusted here that they do not trust; whatever is not simple is left as
it is, to them.
"""

from lockstep.shm.doorbell import Doorbell
from lockstep.shm.ring import RingReader, RingWriter
from lockstep.shm.side import WORD_MASK
from lockstep.shm.walk import KIND_PADDING, PREFIX, RECORD_BYTES_MIN, walk


class Exchange:
    """Beside the reader and the writer that it is made of, and as long as they are open.

    What goes this way is not in their statistics.

    Args:
        reader: Ring from the peer.
        writer: Ring to it.
        bell: Waited for here.
        peer_bell: Rung here.
        counted: It finds who rang by counters (`RingWriter.announce`).
    """

    __slots__ = (
        "_bell",
        "_counted",
        "_down",
        "_down_data",
        "_half",
        "_head",
        "_peer_bell",
        "_up",
        "_up_data",
    )

    def __init__(
        self,
        reader: RingReader,
        writer: RingWriter,
        bell: Doorbell,
        peer_bell: Doorbell,
        counted: bool = True,
    ) -> None:
        self._down = reader.side
        self._down_data = reader.side.data
        self._head = reader.side.peer.word
        self._half = reader.capacity // 2
        self._up = writer.side
        self._up_data = writer.side.data
        self._bell = bell
        self._peer_bell = peer_bell
        self._counted = counted

    def send(self, records: bytes) -> bool:
        """Publish all of ``records`` and ring.

        Args:
            records: Aligned and whole, none larger than half the capacity.

        Returns:
            False: nothing was done; `RingWriter.push_many` knows why.
        """
        side = self._up
        size, at = len(records), side.at
        head, start = at + size, at & (side.capacity - 1)
        # By the tail that was seen last, as `RingWriter.push`.
        if not side.simple or head - side.seen > side.capacity or start + size > side.capacity:
            return False
        self._up_data[start : start + size] = records
        side.at = side.own.word[0] = head
        if self._counted:
            rings = side.rings.word
            rings[0] = rings[0] + 1 & WORD_MASK
        self._peer_bell.ring()
        return True

    def receive(self) -> bytes:
        """All that has come; waits for something.

        Returns:
            Nothing: something has come, and `RingReader.take` knows what.
        """
        side = self._down
        at, word = side.at, self._head
        if not side.simple or side.seen > at:
            return b""
        while (head := word[0]) == at:
            self._bell.wait()
        start, size = at & (side.capacity - 1), head - at
        if not 0 < size <= side.capacity - start:
            return b""
        # Copied before any size is looked at: the peer can still write here, not there.
        data = self._down_data[start : start + size].tobytes()
        if not self._is_pair(data, size) and walk(data, 0, size, self._half)[0] != size:
            return b""
        side.seen = side.at = side.own.word[0] = head
        return data

    def _is_pair(self, data: bytes, size: int) -> bool:
        """Whether it is two records in order, which is what mostly comes; as `walk` would say."""
        if size < 2 * RECORD_BYTES_MIN:
            return False
        first, kind = PREFIX.unpack_from(data)
        after = first + 7 & ~7
        in_order: bool = kind != KIND_PADDING and RECORD_BYTES_MIN <= first <= self._half
        if not in_order or size - after < RECORD_BYTES_MIN:
            return False
        second, kind = PREFIX.unpack_from(data, after)
        in_order = kind != KIND_PADDING and RECORD_BYTES_MIN <= second <= self._half
        return in_order and bool(after + (second + 7 & ~7) == size)
