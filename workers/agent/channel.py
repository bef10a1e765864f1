"""The wire between an agent process and its supervisor: a stream of records each way.

`Channel` is all the process knows of it. The supervisor never blocks on a ring, so that waiting
here for room, without a limit, cannot close a circle.
"""

import struct
from typing import NamedTuple, Protocol

from lockstep.engine.errors import LockstepBug, ProtocolError
from lockstep.engine.record import (
    HEADER,
    HEADER_BYTES,
    WAKE_PAYLOAD,
    Kind,
    aligned,
    decode_at,
)


class Channel(Protocol):
    """Two streams of bytes; records may arrive in any pieces."""

    def send(self, records: bytes) -> None:
        """Send whole records; blocks while there is no room."""

    def receive(self) -> bytes:
        """What arrived, at least one byte; blocks until then."""

    def exchange(self, records: bytes) -> bytes:
        """`send`, then `receive`."""


class Reader(Protocol):
    """Reading end of a ring."""

    def drain(self) -> bytes:
        """Whole records that arrived, or nothing."""


class Writer(Protocol):
    """Writing end of a ring."""

    def push_many(self, records: bytes, start: int) -> int:
        """Push records from offset ``start`` on; the offset that was reached."""


class Bell(Protocol):
    """One doorbell: a ring is kept until somebody waits."""

    def ring(self) -> None:
        """Wake who waits, now or next."""

    def wait(self, timeout_s: float | None = None) -> object:
        """Wait for a ring."""


class Straight(Protocol):
    """Both rings and both bells in one, where that is simple; see `shm.Exchange`."""

    def send(self, records: bytes) -> bool:
        """Push and ring; False: nothing was done."""

    def receive(self) -> bytes:
        """Wait and take; nothing: look with a `Reader`."""


class RingChannel:
    """A channel over two rings.

    Args:
        reader: Ring from the supervisor.
        writer: Ring to the supervisor.
        bell: Rung by the supervisor: something arrived, or there is room.
        peer_bell: Rung here: something was sent, or there is room and this side waits.
        straight: All of them in one.

    Attributes:
        made_room: Records were taken, and since then nobody was rung.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        bell: Bell,
        peer_bell: Bell,
        straight: Straight | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._bell = bell
        self._peer_bell = peer_bell
        self._straight = straight
        self.made_room = False

    def send(self, records: bytes) -> None:
        """As `Channel.send`."""
        sent = 0
        while sent < len(records):
            reached = self._writer.push_many(records, sent)
            if reached > sent:
                self._ring()
                sent = reached
            else:
                # The ring that ends this wait may have meant new records: `receive` looks into
                # the ring before it waits, so none is lost.
                self._wait()

    def receive(self) -> bytes:
        """As `Channel.receive`."""
        while True:
            data = self._reader.drain()
            if data:
                self.made_room = True
                return data
            self._wait()

    def exchange(self, records: bytes) -> bytes:
        """As `Channel.exchange`."""
        straight = self._straight
        if straight is None or not straight.send(records):
            self.send(records)
            return self.receive()
        self.made_room = False
        data = straight.receive()
        if not data:
            return self.receive()
        self.made_room = True
        return data

    def _wait(self) -> None:
        # The supervisor may have more than fitted. Only who is about to wait for it has to say
        # that there is room now: mostly the turn's own records are the next ring.
        if self.made_room:
            self._ring()
        self._bell.wait()

    def _ring(self) -> None:
        self.made_room = False
        self._peer_bell.ring()


class Wake(NamedTuple):
    """The beginning of a turn: its number, its tag, and its events as records."""

    turn: int
    step: int
    micro: int
    events: bytes


# A WAKE as a whole: its header from the turn's number on, then `WAKE_PAYLOAD`.
_WAKE = struct.Struct("<QQQIIQQ")
_WAKE_BYTES = _WAKE.size
_WAKE_HEAD = _WAKE_BYTES | Kind.WAKE << 32  # Size, kind and flags in one.


class Inbox:
    """Reads WAKE and SHUTDOWN off a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._kept = b""  # Arrived and not taken yet.

    def answer(self, records: bytes) -> Wake | None:
        """Send the records that end a turn; then as `next`."""
        if self._kept:
            self._channel.send(records)
            return self.next()
        data = self._channel.exchange(records)
        if len(data) >= _WAKE_BYTES:  # Mostly it has come whole, and alone.
            head, turn, step, micro, reserved, _, size = _WAKE.unpack_from(data)
            if head == _WAKE_HEAD and not reserved and _WAKE_BYTES + size == len(data):
                return tuple.__new__(Wake, (turn, step, micro, data[_WAKE_BYTES:]))
        self._kept = data
        return self.next()

    def next(self) -> Wake | None:
        """The next wake, or None for SHUTDOWN. Blocks.

        Raises:
            LockstepBug: the supervisor sent something else.
        """
        self._fill(HEADER_BYTES)
        if int.from_bytes(self._kept[:8], "little") != _WAKE_HEAD:
            self._shutdown()
            return None
        self._fill(_WAKE_BYTES)
        _, turn, step, micro, reserved, _, size = _WAKE.unpack_from(self._kept)
        if reserved:
            raise LockstepBug(f"the supervisor sent a WAKE whose reserved field is {reserved}")
        after = _WAKE_BYTES + size
        self._fill(after)
        events, self._kept = self._kept[_WAKE_BYTES:after], self._kept[after:]
        return Wake(turn, step, micro, events)

    def _shutdown(self) -> None:
        """Take a SHUTDOWN; refuse whatever else it is."""
        size = aligned(HEADER.unpack_from(self._kept)[0])
        # Checked first, so that a wrong size is not waited for.
        if not HEADER_BYTES <= size <= HEADER_BYTES + WAKE_PAYLOAD.size:
            raise LockstepBug(f"record of {size} bytes sent to an agent, expected WAKE or SHUTDOWN")
        self._fill(size)
        try:
            record, _ = decode_at(self._kept, 0)
        except ProtocolError as error:
            # Never let this pass as an error of the guest in whose call it is met.
            raise LockstepBug(f"the supervisor sent a malformed record: {error}") from error
        if record.kind != Kind.SHUTDOWN:
            raise LockstepBug(f"record of kind {record.kind} sent to an agent, expected WAKE")
        self._kept = self._kept[size:]

    def _fill(self, count: int) -> None:
        if len(self._kept) >= count:
            return
        parts, size = [self._kept], len(self._kept)
        while size < count:
            parts.append(self._channel.receive())
            size += len(parts[-1])
        self._kept = b"".join(parts)
