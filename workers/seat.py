"""An agent's seat: its process as the supervisor sees it, and the turn that is arriving from it."""

import hashlib
from dataclasses import dataclass, field

from lockstep.engine.effects import Turn
from lockstep.engine.errors import RunStopped
from lockstep.engine.record import (
    DIGEST_BYTES,
    HEADER,
    HEADER_BYTES,
    PEER_NONE,
    Kind,
    Outcome,
    TurnEnd,
    aligned,
    decode_at,
    decode_end,
)
from lockstep.shm.walk import PREFIX
from lockstep.workers.catch_up import CatchUp
from lockstep.workers.lifecycle import Lifecycle
from lockstep.workers.links import AgentLink
from lockstep.workers.loop import Timer
from lockstep.workers.spawn import Child

_END, _BLOCKED = int(Kind.END), int(Outcome.BLOCKED)


class Accident(RunStopped):
    """A process says that it leaves by an accident, or sent what no healthy one sends.

    Nothing of it counts but the turns that were complete before. It stops the run only where
    nobody brings the process back.
    """


@dataclass(slots=True)
class Seat:
    """One agent, physically. A turn is all or nothing: without its END, no record of it counts.

    Attributes:
        name: The agent's.
        link: The supervisor's end of its rings.
        child: Its process, while there is one.
        loaded: It said READY.
        ended: Its last END said that the guest has ended: its process leaves by itself.
        progress: Of the turn that is running: its number and the fuel it has burnt so far, at
            least. Who reads it clears it; only a higher one comes after it.
        life: What becomes of its process.
        catch_up: What its process repeats, while it does.
        newest: End of the last turn that arrived.
        cause: How its process got into trouble, if we know better than its exit status.
        timer: Until it is started again.
    """

    name: str
    link: AgentLink
    child: Child | None = None
    loaded: bool = False
    ended: bool = False
    progress: tuple[int, int] | None = None
    life: Lifecycle = field(default_factory=Lifecycle)
    catch_up: CatchUp | None = None
    newest: TurnEnd | None = None
    cause: str = ""
    timer: Timer | None = None
    _turn: int = 0  # That is running, or will be the next.
    _burnt: int = 0  # In it, at least.
    _parts: list[bytes] = field(default_factory=list)
    _count: int = 0

    def renew(self, link: AgentLink, first: int) -> None:
        """A new process will sit here: what had half arrived from the old one is dropped.

        Args:
            link: To the new one.
            first: Number of the first turn that it runs.
        """
        self.link = link
        self.loaded, self.progress, self.cause = False, None, ""
        self._turn, self._burnt = first, 0
        self._parts, self._count = [], 0

    def receive(self) -> list[Turn]:
        """Drain the ring: the turns that are complete now.

        Raises:
            Accident: the process says that it leaves by an accident, or what it sent is not
                what it says it sent.
            RingCorrupt: as `shm.RingReader`.
        """
        data, count, marks = self.link.take()
        turns = []
        start = number = 0  # The guest's own records from `start` on were not kept yet.
        for offset, before in marks:
            if before > number:
                self._keep(data[start:offset], before - number)
            size, kind = PREFIX.unpack_from(data, offset)
            start, number = offset + aligned(size), before + 1
            if kind == _END:
                turns.append(self._end(data[offset:start]))
            elif kind == Kind.READY:
                self.loaded = True
            elif kind == Kind.PROGRESS:
                self._note_progress(data[offset:start])
            else:
                raise self._accident(kind, data[offset:start])
        if count > number:
            self._keep(data[start:], count - number)
        return turns

    def _keep(self, records: bytes, count: int) -> None:
        self._parts.append(records)
        self._count += count

    def _end(self, data: bytes) -> Turn:
        end = _read_end(data)
        records, count = b"".join(self._parts), self._count
        self._parts, self._count = [], 0
        if end.count != count or end.digest != hashlib.sha256(records).digest():
            raise Accident(
                f"agent {self.name}: turn {end.turn} arrived with {count} records, its end says "
                f"{end.count}, or their hash differs; the turn does not count"
            )
        self.ended = end.outcome != _BLOCKED
        self.progress, self._turn, self._burnt = None, end.turn + 1, 0
        self.newest = end
        turn = end.turn, end.fuel, end.outcome, end.reason, records
        return tuple.__new__(Turn, turn)  # A third of the time that its own constructor takes.

    def _note_progress(self, data: bytes) -> None:
        record = decode_at(data, 0)[0]
        if record.payload or record.flags or record.peer != PEER_NONE:
            raise Accident(
                f"agent {self.name}: PROGRESS with {len(record.payload)} bytes, flags "
                f"{record.flags} and peer {record.peer}, expected none of them"
            )
        # Of another turn than the one that is running, or less than before: publishing is an
        # optimisation, so what says nothing is not worth a run.
        if record.id == self._turn and record.item > self._burnt:
            self._burnt = record.item
            self.progress = (record.id, record.item)

    def _accident(self, kind: int, data: bytes) -> Accident:
        if kind != Kind.ACCIDENT:
            return Accident(f"agent {self.name}: sent a record of kind {kind}")
        reason = decode_at(data, 0)[0].payload.decode("utf-8", "replace")
        return Accident(f"agent {self.name}: accident: {reason}")


def _read_end(data: bytes) -> TurnEnd:
    """An END; the common one, of a guest that waits for events, without further ado."""
    size, _, outcome, turn, fuel, count, reserved = HEADER.unpack_from(data)
    if size == HEADER_BYTES + DIGEST_BYTES and not outcome and not reserved:
        end = turn, _BLOCKED, fuel, count, data[HEADER_BYTES:], ""
        return tuple.__new__(TurnEnd, end)
    return decode_end(decode_at(data, 0)[0])
