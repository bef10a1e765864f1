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
from lockstep.shm.walk import ALIGN, walk


class Exchange:
    """Beside the reader and the writer that it is made of, and as long as they are open.

    What goes this way is not in their statistics.

    Args:
        reader: Ring from the peer.
        writer: Ring to it.
        bell: Waited for here.
        peer_bell: Rung here; it finds who rang by counters (`RingWriter.announce`).
    """

    __slots__ = ("_bell", "_down", "_peer_bell", "_up")

    def __init__(
        self, reader: RingReader, writer: RingWriter, bell: Doorbell, peer_bell: Doorbell
    ) -> None:
        self._down = reader.side
        self._up = writer.side
        self._bell = bell
        self._peer_bell = peer_bell

    def send(self, records: bytes) -> bool:
        """Publish all of ``records`` and ring.

        Args:
            records: Aligned and whole, none larger than half the capacity.

        Returns:
            False: nothing was done; `RingWriter.push_many` knows why.
        """
        side = self._up
        if not side.simple:
            return False
        at, tail, capacity = side.at, side.peer.word[0], side.capacity
        head, start = at + len(records), at & (capacity - 1)
        stop = start + len(records)
        if not side.seen <= tail <= at or tail % ALIGN or head - tail > capacity or stop > capacity:
            return False
        side.data[start:stop] = records
        side.seen, side.at, side.own.word[0] = tail, head, head
        side.rings.word[0] = side.rings.word[0] + 1 & WORD_MASK
        self._peer_bell.ring()
        return True

    def receive(self) -> bytes:
        """All that has come; waits for something.

        Returns:
            Nothing: something has come, and `RingReader.take` knows what.
        """
        side = self._down
        if not side.simple or side.seen > side.at:
            return b""
        at, word = side.at, side.peer.word
        while (head := word[0]) == at:
            self._bell.wait()
        start, size = at & (side.capacity - 1), head - at
        if not 0 < size <= side.capacity - start:
            return b""
        # Copied before any size is looked at: the peer can still write here, not there.
        data = bytes(side.data[start : start + size])
        if walk(data, 0, size, side.capacity // 2)[0] != size:
            return b""
        side.seen, side.at, side.own.word[0] = head, head, head
        return data
