"""An agent's seat: its process as the supervisor sees it, and the turn that is arriving from it."""

import hashlib
from dataclasses import dataclass, field

from lockstep.engine.effects import Turn
from lockstep.engine.errors import RunStopped
from lockstep.engine.record import HEADER, Kind, Outcome, aligned, decode_at, decode_end
from lockstep.workers.links import AgentLink
from lockstep.workers.spawn import Child


@dataclass(slots=True)
class Seat:
    """One agent, physically. A turn is all or nothing: without its END, no record of it counts.

    Attributes:
        name: The agent's.
        link: The supervisor's end of its rings.
        child: Its process, while there is one.
        loaded: It said READY.
        ended: Its last END said that the guest has ended: its process leaves by itself.
    """

    name: str
    link: AgentLink
    child: Child | None = None
    loaded: bool = False
    ended: bool = False
    _parts: list[bytes] = field(default_factory=list)
    _count: int = 0

    def receive(self) -> list[Turn]:
        """Drain the ring: the turns that are complete now.

        Raises:
            RunStopped: the process says that it leaves by an accident, or what it sent is not
                what it says it sent.
            RingCorrupt: as `shm.RingReader`.
        """
        data = self.link.drain()
        turns = []
        start = offset = 0  # The guest's own records since `start` are kept as one part.
        while offset < len(data):
            size, kind = HEADER.unpack_from(data, offset)[:2]
            after = offset + aligned(size)
            if kind < Kind.END:
                self._count += 1
            else:
                self._parts.append(data[start:offset])
                start = after
                if kind == Kind.END:
                    turns.append(self._end(data[offset:after]))
                elif kind == Kind.READY:
                    self.loaded = True
                else:
                    raise self._accident(kind, data[offset:after])
            offset = after
        self._parts.append(data[start:])
        return turns

    def _end(self, data: bytes) -> Turn:
        end = decode_end(decode_at(data, 0)[0])
        records, count = b"".join(self._parts), self._count
        self._parts, self._count = [], 0
        if end.count != count or end.digest != hashlib.sha256(records).digest():
            raise RunStopped(
                f"agent {self.name}: turn {end.turn} arrived with {count} records, its end says "
                f"{end.count}, or their hash differs; the turn does not count"
            )
        self.ended = end.outcome != Outcome.BLOCKED
        return Turn(end.turn, end.fuel, end.outcome, end.reason, records)

    def _accident(self, kind: int, data: bytes) -> RunStopped:
        if kind != Kind.ACCIDENT:
            return RunStopped(f"agent {self.name}: sent a record of kind {kind}")
        reason = decode_at(data, 0)[0].payload.decode("utf-8", "replace")
        return RunStopped(f"agent {self.name}: accident: {reason}")
