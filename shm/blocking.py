"""Blocking: both sides of a ring together with its two bells, for who may wait.

The supervisor never does. An outlet waits for room and rings when it has published; an inlet waits
for records and rings when it has made room that the other said it waits for. Time over, a ring
that was closed, one that was scribbled over and a peer that died are four different things.
"""

import select
import time

from lockstep.shm.doorbell import Doorbell
from lockstep.shm.errors import PeerDied, RingFull
from lockstep.shm.ring import RingReader, RingWriter
from lockstep.shm.views import RingViews
from lockstep.shm.walk import aligned

IN_PLACE_BYTES_MIN = 4096  # From here on, writing at once costs less than gathering.
# A reader that sleeps and is woken for every record costs both sides more than the record does.
GATHERED_BYTES = 32_768
UNRUNG_BYTES = 262_144


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
            if any(found == self._life for found, _ in ready):
                if self.clear():  # Its last ring: it is heard first.
                    return True
                raise PeerDied("the process on the other side of the ring is gone")
        return True

    def close(self) -> None:
        self._descriptors = ()
        self._bell.close()


class Outlet:
    """The writing side.

    Args:
        writer: Of the ring.
        filled: Rung here after each publish; the reader waits for it.
        drained: Waited for here; the reader rings it.
    """

    def __init__(self, writer: RingWriter, filled: Doorbell, drained: Doorbell) -> None:
        self._writer = writer
        self._filled = filled
        self._drained = drained

    def send(self, record: bytes, body: bytes = b"", timeout_s: float | None = None) -> None:
        """Write one record and ring: `write`, then `ring`."""
        self.write(record, body, timeout_s)
        self.ring()

    def write(self, record: bytes, body: bytes = b"", timeout_s: float | None = None) -> None:
        """Write one record and publish it. Ring afterwards: a reader that sleeps does not see it.

        Args:
            record: All of it, or its beginning, a header.
            body: The rest, of any length: zeros are put behind it.
            timeout_s: How long to wait for room; None for ever.

        Raises:
            RingFull: the time is over; nothing was written.
            PeerDied: there is no room and nobody who will make any; nothing was written.
            ValueError: as `RingWriter.push`.
        """
        deadline_s = _deadline(timeout_s)
        while True:
            try:
                self._writer.push(record, body)
                return
            except RingFull:
                if not self._wait(deadline_s):
                    label, size = self._writer.side.label, aligned(len(record) + len(body))
                    raise RingFull(f"{label}: no room for {size} bytes in time") from None

    def send_many(self, records: bytes, timeout_s: float | None = None) -> int:
        """Write aligned records that lie one behind the other; rings once for what fits at once.

        Returns:
            The offset that was reached: the length, unless the time ran out.

        Raises:
            PeerDied: some may have been written; the reader is gone.
        """
        deadline_s, sent = _deadline(timeout_s), 0
        while (reached := self._writer.push_many(records, sent)) < len(records):
            if not self._wait(deadline_s):
                break
            sent = reached
        if reached > sent:
            self.ring()
        return reached

    def ring(self) -> None:
        """Wake the reader: for what was written since the last ring."""
        self._writer.announce()
        self._filled.ring()

    def _wait(self, deadline_s: float | None) -> bool:
        """Tell the reader that room is wanted, and wait for its ring; False: the time is over.

        Only once for each telling: the ring may be for an earlier one, and a reader that has heard
        of this one already will not ring for it again.
        """
        self._writer.announce(waiting=True)
        self._filled.ring()
        return self._drained.wait(_left(deadline_s))


class Batch:
    """Records one by one, rung for together: who has many of them.

    Small ones are gathered and written at once; large ones are written where they will lie. Both
    are sure to be seen by the reader after `flush`, which happens by itself when enough has come
    together. A writer that dies takes with it what it had only gathered.

    Args:
        outlet: Takes the batches; waits for room as long as it takes.
        gathered_bytes_max: Of small ones.
        unrung_bytes_max: Of large ones.
    """

    def __init__(
        self,
        outlet: Outlet,
        gathered_bytes_max: int = GATHERED_BYTES,
        unrung_bytes_max: int = UNRUNG_BYTES,
    ) -> None:
        self._outlet = outlet
        self._gathered_bytes_max = self._left = gathered_bytes_max
        self._unrung_bytes_max = unrung_bytes_max
        self._unrung = 0
        self._records: list[bytes] = []

    def add(self, record: bytes, body: bytes = b"") -> None:
        """One record, as `Outlet.write` takes it."""
        if len(body) >= IN_PLACE_BYTES_MIN:
            self._add_large(record, body)
            return
        if len(record) + len(body) > self._left:
            self.flush()
        whole = record + body
        if len(whole) & 7:
            whole += bytes(-len(whole) & 7)
        self._records.append(whole)
        self._left -= len(whole)

    def flush(self) -> None:
        """Hand over what was gathered, and ring."""
        records = b"".join(self._records)
        self._records.clear()
        self._left = self._gathered_bytes_max
        if records:
            self._outlet.send_many(records)
        elif self._unrung:
            self._outlet.ring()
        self._unrung = 0

    def _add_large(self, record: bytes, body: bytes) -> None:
        if self._records:
            self.flush()  # Nothing overtakes.
        self._outlet.write(record, body)
        self._unrung += len(body)
        if self._unrung >= self._unrung_bytes_max:
            self.flush()


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
        """Wait for one ring; False: the time is over.

        Only one: it may have been for room, and then it is this side that has to ring.
        """
        side = self._reader.side
        try:
            return self._filled.wait(_left(deadline_s))
        except PeerDied:
            if side.peer.load() == side.at:
                raise
            return True  # What was published before a death is taken first.

    def _make_known(self) -> None:
        if self._reader.awaited():
            self._drained.ring()


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _left(deadline_s: float | None) -> float | None:
    return None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
