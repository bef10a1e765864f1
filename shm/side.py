"""Side: one end of a ring; cursor arithmetic and distrust, shared by byte rings and slot rings.

The own cursor is private: it is read from memory once, when the ring is opened, and only written
afterwards, so a peer that scribbles over it changes nothing here. The peer's cursor is read once
per call and checked before anything is computed from it.
"""

from dataclasses import dataclass
from typing import NoReturn

from lockstep.shm import header
from lockstep.shm.cursor import STRONG, Cursor, Memory, byte_view
from lockstep.shm.errors import RingClosed, RingCorrupt

WORD_MASK = (1 << 64) - 1


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


class Side:
    """What `Producer` and `Consumer` have in common.

    Attributes:
        capacity: Bytes (slots) of the data.
        data: The bytes after the header, until `close`.
        at: The own cursor.
        seen: The peer's cursor when last looked at.
        simple: Neither closed nor given up, and on a CPU where cursors need no fence: who finds
            nothing else to mind, either, may move bytes and `own`, `peer` by himself.
        own: The own cursor in memory.
        peer: The peer's.
    """

    def __init__(
        self, memory: Memory, magic: int, unit: int, slot_bytes: int, label: str, own: str
    ) -> None:
        self.label = label
        self.capacity = header.check(memory, magic, slot_bytes, label)
        self._unit = unit  # Cursors move in multiples of it.
        self._failure: str | None = None
        self._closed = False
        self.simple = STRONG
        peer = "tail" if own == "head" else "head"
        self._peer_name = peer
        self.own = Cursor(memory, header.OFFSETS[own])
        self.peer = Cursor(memory, header.OFFSETS[peer])
        self._waits = Cursor(memory, header.OFFSETS["waits"])
        with byte_view(memory) as view:
            size = self.capacity * (slot_bytes or 1)
            self.data = view[header.HEADER_BYTES : header.HEADER_BYTES + size]
        self.at = self.own.load()
        self.seen = self.at
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
        self.simple = False
        self._failure = f"{self.label}: {text}; nothing was taken and the ring is given up"
        raise RingCorrupt(self._failure)

    def resume(self) -> None:
        """Be `simple` again, as far as this side may be: the end of what was not."""
        self.simple = STRONG and not self._closed and self._failure is None

    def publish(self, at: int) -> None:
        """Move the own cursor; all bytes written before are visible to who sees it."""
        self.at = at
        self.own.store(at)

    def close(self) -> None:
        """Give the memory back. Idempotent; the peer notices nothing."""
        self._closed, self.simple = True, False
        self.own.release()
        self.peer.release()
        self._waits.release()
        self.data.release()

    def _look(self, low: int, high: int) -> int:
        value = self.peer.load()
        if not low <= value <= high:
            self._reject(self._peer_name, value, f"{low} to {high}")
        if value % self._unit:
            self._reject(self._peer_name, value, f"a multiple of {self._unit}")
        self.seen = value
        return value

    def _reject(self, name: str, found: int, expected: str) -> NoReturn:
        self.poison(f"{name} is {found}, expected {expected}")


class Producer(Side):
    """The side that owns the head.

    Attributes:
        rings: How often it was about to ring, in memory.
        claimed: A `Claim` is open: what it has room for is not to be written by others.
    """

    def __init__(
        self, memory: Memory, magic: int, label: str, unit: int = 1, slot_bytes: int = 0
    ) -> None:
        super().__init__(memory, magic, unit, slot_bytes, label, own="head")
        self.claimed = False
        self.rings = Cursor(memory, header.OFFSETS["rings"])
        self.seen = max(0, self.at - self.capacity)
        self._look(self.seen, self.at)

    def check(self) -> None:
        """As `Side.check`; ValueError while a claim is open."""
        super().check()
        if self.claimed:
            raise ValueError(f"{self.label}: a claim is open; publish it or give it up first")

    def room(self) -> int:
        """Bytes (slots) that can be written now. Reads the tail once.

        Raises:
            RingCorrupt: the tail went back, overtook the head or is unaligned.
        """
        return self.capacity - (self.at - self.tail())

    def tail(self) -> int:
        """The consumer's cursor, read once. Errors as `room`."""
        return self._look(self.seen, self.at)

    def announce(self, waiting: bool) -> None:
        """Move the counters that the consumer looks at when it is rung."""
        if waiting or not self.simple:
            self.check()
        if waiting:
            self._waits.store((self._waits.load() + 1) & WORD_MASK)
        # No fence: the doorbell behind it brings it, and who looks earlier looks once more.
        self.rings.word[0] = (self.rings.word[0] + 1) & WORD_MASK

    def close(self) -> None:
        """As `Side.close`."""
        super().close()
        self.rings.release()


class Consumer(Side):
    """The side that owns the tail."""

    def __init__(
        self, memory: Memory, magic: int, label: str, unit: int = 1, slot_bytes: int = 0
    ) -> None:
        super().__init__(memory, magic, unit, slot_bytes, label, own="tail")
        self._look(self.at, self.at + self.capacity)
        self._waits_seen = 0  # Who waited for the reader before this one still does.

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
        return self._look(self.seen, self.at + self.capacity) - self.at
