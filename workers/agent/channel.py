"""The wire between an agent process and its supervisor: a stream of records each way.

`Channel` is all the process knows of it. The supervisor never blocks on a ring, so that waiting
here for room, without a limit, cannot close a circle.
"""

from typing import NamedTuple, Protocol

from lockstep.engine.errors import LockstepBug, ProtocolError
from lockstep.engine.record import (
    HEADER,
    HEADER_BYTES,
    WAKE_PAYLOAD,
    Kind,
    Record,
    aligned,
    decode_at,
)


class Channel(Protocol):
    """Two streams of bytes; records may arrive in any pieces."""

    def send(self, records: bytes) -> None:
        """Send whole records; blocks while there is no room."""

    def receive(self) -> bytes:
        """What arrived, at least one byte; blocks until then."""


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


class RingChannel:
    """A channel over two rings.

    Args:
        reader: Ring from the supervisor.
        writer: Ring to the supervisor.
        bell: Rung by the supervisor: something arrived, or there is room.
        peer_bell: Rung here: something was sent, or there is room.
    """

    def __init__(self, reader: Reader, writer: Writer, bell: Bell, peer_bell: Bell) -> None:
        self._reader = reader
        self._writer = writer
        self._bell = bell
        self._peer_bell = peer_bell

    def send(self, records: bytes) -> None:
        """As `Channel.send`."""
        sent = 0
        while sent < len(records):
            reached = self._writer.push_many(records, sent)
            if reached > sent:
                self._peer_bell.ring()
                sent = reached
            else:
                # The ring that ends this wait may have meant new records: `receive` looks into
                # the ring before it waits, so none is lost.
                self._bell.wait()

    def receive(self) -> bytes:
        """As `Channel.receive`."""
        while True:
            data = self._reader.drain()
            if data:
                self._peer_bell.ring()  # The supervisor may wait for the room just made.
                return data
            self._bell.wait()


class Wake(NamedTuple):
    """The beginning of a turn: its number, its tag, and its events as records."""

    turn: int
    step: int
    micro: int
    events: bytes


class Inbox:
    """Reads WAKE and SHUTDOWN off a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._kept = bytearray()

    def next(self) -> Wake | None:
        """The next wake, or None for SHUTDOWN. Blocks.

        Raises:
            LockstepBug: the supervisor sent something else.
        """
        record = self._record()
        if record.kind == Kind.SHUTDOWN:
            return None
        if record.kind != Kind.WAKE or len(record.payload) != WAKE_PAYLOAD.size:
            raise LockstepBug(f"record of kind {record.kind} sent to an agent, expected WAKE")
        _, size = WAKE_PAYLOAD.unpack(record.payload)
        return Wake(record.id, record.item, record.peer, self._take(size))

    def _record(self) -> Record:
        self._fill(HEADER_BYTES)
        size = aligned(HEADER.unpack_from(self._kept)[0])
        # Checked first, so that a wrong size is not waited for.
        if not HEADER_BYTES <= size <= HEADER_BYTES + WAKE_PAYLOAD.size:
            raise LockstepBug(f"record of {size} bytes sent to an agent, expected WAKE or SHUTDOWN")
        try:
            return decode_at(self._take(size), 0)[0]
        except ProtocolError as error:
            # Never let this pass as an error of the guest in whose call it is met.
            raise LockstepBug(f"the supervisor sent a malformed record: {error}") from error

    def _take(self, count: int) -> bytes:
        self._fill(count)
        data = bytes(self._kept[:count])
        del self._kept[:count]
        return data

    def _fill(self, count: int) -> None:
        while len(self._kept) < count:
            self._kept += self._channel.receive()
