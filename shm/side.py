"""Side: one end of a ring; cursor arithmetic and distrust, shared by byte rings and slot rings.

The own cursor is private: it is read from memory once, when the ring is opened, and only written
afterwards, so a peer that scribbles over it changes nothing here. The peer's cursor is read once
per call and checked before anything is computed from it.
"""

from typing import NoReturn

from lockstep.shm import header
from lockstep.shm.cursor import Cursor, Memory, byte_view
from lockstep.shm.errors import RingClosed, RingCorrupt

_WORD_MASK = (1 << 64) - 1


class Side:
    """What `Producer` and `Consumer` have in common.

    Attributes:
        capacity: Bytes (slots) of the data.
        data: The bytes after the header, until `close`.
        at: The own cursor.
    """

    def __init__(
        self, memory: Memory, magic: int, unit: int, slot_bytes: int, label: str, own: str
    ) -> None:
        self.label = label
        self.capacity = header.check(memory, magic, slot_bytes, label)
        self._unit = unit  # Cursors move in multiples of it.
        self._failure: str | None = None
        self._closed = False
        peer = "tail" if own == "head" else "head"
        self._peer_name = peer
        self._own = Cursor(memory, header.OFFSETS[own])
        self._peer = Cursor(memory, header.OFFSETS[peer])
        self._waits = Cursor(memory, header.OFFSETS["waits"])
        with byte_view(memory) as view:
            size = self.capacity * (slot_bytes or 1)
            self.data = view[header.HEADER_BYTES : header.HEADER_BYTES + size]
        self.at = self._own.load()
        self._seen = self.at  # The peer's cursor when last looked at.
        if self.at % unit:
            self._reject(own, self.at, f"a multiple of {unit}")

    def check(self) -> None:
        """Raise RingClosed or, again and again, the RingCorrupt that poisoned this ring."""
        if self._failure is not None:
            raise RingCorrupt(self._failure)
        if self._closed:
            raise RingClosed(f"{self.label}: this side closed it")

    def poison(self, text: str) -> NoReturn:
        """Refuse this ring for good."""
        self._failure = f"{self.label}: {text}; nothing was taken and the ring is given up"
        raise RingCorrupt(self._failure)

    def publish(self, at: int) -> None:
        """Move the own cursor; all bytes written before are visible to who sees it."""
        self.at = at
        self._own.store(at)

    def close(self) -> None:
        """Give the memory back. Idempotent; the peer notices nothing."""
        self._closed = True
        self._own.release()
        self._peer.release()
        self._waits.release()
        self.data.release()

    def _look(self, low: int, high: int) -> int:
        value = self._peer.load()
        if not low <= value <= high:
            self._reject(self._peer_name, value, f"{low} to {high}")
        if value % self._unit:
            self._reject(self._peer_name, value, f"a multiple of {self._unit}")
        self._seen = value
        return value

    def _reject(self, name: str, found: int, expected: str) -> NoReturn:
        self.poison(f"{name} is {found}, expected {expected}")


class Producer(Side):
    """The side that owns the head."""

    def __init__(
        self, memory: Memory, magic: int, label: str, unit: int = 1, slot_bytes: int = 0
    ) -> None:
        super().__init__(memory, magic, unit, slot_bytes, label, own="head")
        self._rings = Cursor(memory, header.OFFSETS["rings"])
        self._seen = max(0, self.at - self.capacity)
        self._look(self._seen, self.at)

    def room(self) -> int:
        """Bytes (slots) that can be written now. Reads the tail once.

        Raises:
            RingCorrupt: the tail went back, overtook the head or is unaligned.
        """
        return self.capacity - (self.at - self._look(self._seen, self.at))

    def announce(self, waiting: bool) -> None:
        """Move the counters that the consumer looks at when it is rung."""
        self.check()
        if waiting:
            self._waits.store((self._waits.load() + 1) & _WORD_MASK)
        self._rings.store((self._rings.load() + 1) & _WORD_MASK)

    def close(self) -> None:
        """As `Side.close`."""
        super().close()
        self._rings.release()


class Consumer(Side):
    """The side that owns the tail."""

    def __init__(
        self, memory: Memory, magic: int, label: str, unit: int = 1, slot_bytes: int = 0
    ) -> None:
        super().__init__(memory, magic, unit, slot_bytes, label, own="tail")
        self._look(self.at, self.at + self.capacity)
        self._waits_seen = self._waits.load()

    def awaited(self) -> bool:
        """Whether the producer has said, since it was asked last, that it waits for room."""
        waits = self._waits.load()
        if waits == self._waits_seen:
            return False
        self._waits_seen = waits
        return True

    def ready(self) -> int:
        """Bytes (slots) that can be read now. Reads the head once.

        Raises:
            RingCorrupt: the head went back, jumped beyond the capacity or is unaligned.
        """
        return self._look(self._seen, self.at + self.capacity) - self.at
