"""Blocking: both sides of a ring together with its two bells, for who may wait.

The supervisor never does. An outlet waits for room and rings when it has published; an inlet waits
for records and rings when it has made room that the other said it waits for. Time over, a ring
that was closed, one that was scribbled over and a peer that died are four different things.
"""

import select
import time

from lockstep.shm.claim import Claim
from lockstep.shm.doorbell import Doorbell
from lockstep.shm.errors import PeerDied, RingFull
from lockstep.shm.ring import RingReader, RingWriter
from lockstep.shm.views import RingViews
from lockstep.shm.walk import aligned

IN_PLACE_BYTES_MIN = 4096  # From here on, filling in two parts costs less than joining them.


class WatchedBell(Doorbell):
    """A doorbell beside the process that rings it: waiting ends with either.

    Args:
        bell: Belongs to this one from now on.
        life: A descriptor that becomes readable when the process is gone: its pidfd, or a pipe
            that only it holds the other end of. Whoever opened it closes it.
    """

    def __init__(self, bell: Doorbell, life: int) -> None:
        super().__init__(bell.descriptors())
        self._bell = bell
        self._life = life
        self._poll.register(life, select.POLLIN)

    def ring(self) -> None:
        self._bell.ring()

    def clear(self) -> bool:
        return self._bell.clear()

    def wait(self, timeout_s: float | None = None) -> bool:
        """As `Doorbell.wait`.

        Raises:
            PeerDied: the process is gone, and the last of its rings was heard.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.clear():
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            ready = self._poll.poll(None if left_s is None else int(left_s * 1000) + 1)
            if any(found == self._life for found, _ in ready) and not self.clear():
                raise PeerDied("the process on the other side of the ring is gone")
        return True

    def close(self) -> None:
        self._descriptors = ()
        self._bell.close()


class Outlet:
    """The writing side.

    Args:
        writer: Of the ring.
        filled: Rung here; the reader waits for it.
        drained: Waited for here; the reader rings it.
        batch: Of so many records only the last is rung for. All are there for a reader that looks,
            but one that sleeps is woken at the end of the batch, by `flush`, or when the ring is
            full: who uses more than 1 calls `flush` before doing anything else.
    """

    def __init__(
        self, writer: RingWriter, filled: Doorbell, drained: Doorbell, batch: int = 1
    ) -> None:
        self._writer = writer
        self._push = writer.push
        self._filled = filled
        self._drained = drained
        self._batch = batch
        self._unrung = 0

    def send(self, record: bytes, body: bytes = b"", timeout_s: float | None = None) -> None:
        """Write one record.

        Args:
            record: All of it, or its beginning, a header.
            body: The rest, of any length: zeros are put behind it.
            timeout_s: How long to wait for room; None for ever.

        Raises:
            RingFull: the time is over; nothing was written.
            PeerDied: there is no room and nobody who will make any; nothing was written.
            ValueError: as `RingWriter.push`.
        """
        if len(body) >= IN_PLACE_BYTES_MIN:
            self._fill(record, body, timeout_s)
        else:
            if body:
                record += body
            if len(record) & 7:
                record += bytes(-len(record) & 7)
            try:
                self._push(record)
            except RingFull:
                self._wait_and_push(record, timeout_s)
        self._unrung += 1
        if self._unrung >= self._batch:
            self.flush()

    def send_many(self, records: bytes, timeout_s: float | None = None) -> int:
        """Write aligned records that lie one behind the other; rings once for all that fit at once.

        Returns:
            The offset that was reached: the length, unless the time ran out.

        Raises:
            PeerDied: some may have been written; the reader is gone.
        """
        deadline_s, sent = _deadline(timeout_s), 0
        while True:
            reached = self._writer.push_many(records, sent)
            self._unrung += reached > sent
            if reached == len(records) or (reached == sent and not self._wait(deadline_s)):
                self.flush()
                return reached
            sent = reached

    def flush(self) -> None:
        """Ring, if anything was written since the last ring."""
        if self._unrung:
            self._unrung = 0
            self._writer.announce()
            self._filled.ring()

    def _wait_and_push(self, record: bytes, timeout_s: float | None) -> None:
        deadline_s = _deadline(timeout_s)
        while not self._writer.push_many(record):
            self._wait_or_refuse(deadline_s, len(record))

    def _fill(self, record: bytes, body: bytes, timeout_s: float | None) -> None:
        deadline_s, size = _deadline(timeout_s), len(record) + len(body)
        while True:
            try:
                with Claim(self._writer, size) as room:
                    room[: len(record)] = record
                    room[len(record) :] = body
                return
            except RingFull:
                self._wait_or_refuse(deadline_s, aligned(size))

    def _wait_or_refuse(self, deadline_s: float | None, size: int) -> None:
        if not self._wait(deadline_s):
            raise RingFull(f"{self._writer.side.label}: no room for {size} bytes in time")

    def _wait(self, deadline_s: float | None) -> bool:
        """Tell the reader that there is no room, and wait until the tail has moved."""
        side = self._writer.side
        self._unrung = 0
        self._writer.announce(waiting=True)
        self._filled.ring()
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        before = side.seen
        return side.peer.wait(before, self._drained, left_s) != before


class Inlet:
    """The reading side.

    Args:
        reader: Of the ring.
        filled: Waited for here; the writer rings it.
        drained: Rung here when there is room that the writer waits for.
    """

    def __init__(self, reader: RingReader, filled: Doorbell, drained: Doorbell) -> None:
        self._reader = reader
        self._views = RingViews(reader)
        self._filled = filled
        self._drained = drained

    def receive(self, timeout_s: float | None = None) -> list[memoryview]:
        """Records, one at least, as views that are valid until the next call (`RingViews`).

        Args:
            timeout_s: How long to wait for the first; None for ever.

        Returns:
            Nothing only if the time ran out.

        Raises:
            PeerDied: the writer is gone, and all that it published was received.
        """
        deadline_s = _deadline(timeout_s)
        while not (views := self._views.take()):
            self._make_known()
            if not self._wait(deadline_s):
                return []
        self._make_known()
        return views

    def _wait(self, deadline_s: float | None) -> bool:
        """Whether the head has moved. What was published before a death is taken first."""
        side = self._reader.side
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        try:
            return side.peer.wait(side.at, self._filled, left_s) != side.at
        except PeerDied:
            if side.peer.load() == side.at:
                raise
            return True

    def _make_known(self) -> None:
        if self._reader.awaited():
            self._drained.ring()


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s
