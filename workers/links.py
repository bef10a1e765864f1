"""Links: the two ends of what the supervisor shares with an agent.

The supervisor never blocks on a ring: what an in-ring cannot take waits in its heap, and the
other side rings when it has drained. The other side may block, since this one always drains, and
is rung when there is room if it has said that it waits.
"""

from collections import deque
from dataclasses import dataclass

from lockstep import shm
from lockstep.engine.record import Kind

View = memoryview  # In a compiled dataclass mypyc does not find every builtin by name.


def ring_slice_bytes(record_bytes_max: int) -> int:
    """Bytes of one byte ring that fits the largest legal record."""
    return shm.ring_bytes(shm.capacity_for(record_bytes_max))


@dataclass(slots=True)
class RingPair:
    """Two byte rings between the supervisor and an agent, its bell, and the supervisor's.

    Attributes:
        down: Memory of the ring to the agent.
        up: Memory of the ring from it.
        agent_bell: The agent waits for it: events or room.
        supervisor_bell: The supervisor waits for it: records or room. One for all agents: who
            takes its rings looks which of them rang (`Rung`).
        segment: Name by which a process that is not forked attaches to the memory.
    """

    down: View
    up: View
    agent_bell: shm.Doorbell
    supervisor_bell: shm.Doorbell
    segment: str = ""

    @classmethod
    def create(
        cls,
        memory: memoryview,
        supervisor_bell: shm.SharedDoorbell,
        agent_bell: shm.Doorbell | None = None,
        segment: str = "",
    ) -> "RingPair":
        """Lay both rings over a slice; half of it each.

        Args:
            memory: The slice.
            supervisor_bell: The supervisor's, for all agents.
            agent_bell: The agent's; None: the best kind that this system has.
            segment: As the attribute.
        """
        half = len(memory) // 2
        down, up = memory[:half], memory[half:]
        shm.create_ring(down)
        shm.create_ring(up)
        return cls(down, up, agent_bell or shm.Doorbell.create(), supervisor_bell, segment)

    @classmethod
    def attach(
        cls, segment: str, agent_bell: shm.Doorbell, supervisor_bell: shm.Doorbell
    ) -> "RingPair":
        """The agent's side, in a process that did not inherit it."""
        memory = shm.attach(segment, writable=True).memory
        half = len(memory) // 2
        return cls(memory[:half], memory[half:], agent_bell, supervisor_bell, segment)

    def __reduce__(self) -> tuple[object, ...]:
        bells = self.agent_bell.waiting(), self.supervisor_bell.ringing()
        return RingPair.attach, (self.segment, *bells)

    def renew(self) -> None:
        """Empty both rings and the bell, for another process. No side may have them open."""
        shm.create_ring(self.down)
        shm.create_ring(self.up)
        self.agent_bell.clear()

    def descriptors(self) -> list[int]:
        """What the agent process keeps open."""
        bells = self.agent_bell.waiting_descriptors(), self.supervisor_bell.ringing_descriptors()
        return [descriptor for bell in bells for descriptor in bell]

    def close(self) -> None:
        """Close the agent's bell. The supervisor's is everybody's."""
        self.agent_bell.close()


class Rung:
    """Which agents rang the bell that they share: the counters in their rings that have moved.

    Args:
        bell: The supervisor's, for all agents.
        counters: u64 for each agent, the word ``rings`` of its ring up: written by its process,
            which so can wake the supervisor in vain, and hide nobody's ring but its own.
    """

    def __init__(self, bell: shm.Doorbell, counters: shm.Words) -> None:
        self.bell = bell
        self._counters = counters
        self._seen = counters.copy()

    def take(self) -> list[int]:
        """Clear the bell; the agents that rang since, by index, each once."""
        self.bell.clear()  # First, so that no ring is lost: who rings from now on rings again.
        now = self._counters.copy()
        (changed,) = (now != self._seen).nonzero()
        self._seen = now
        found: list[int] = changed.tolist()
        return found

    def renew(self, index: int) -> None:
        """The agent's ring was emptied, its counter with it: that is no ring.

        Without this, a counter that begins anew could reach the number that was seen last just
        when it is looked at, and its rings would be lost.
        """
        self._seen[index] = self._counters.copy()[index]


class AgentLink:
    """The supervisor's end of a `RingPair`."""

    def __init__(self, pair: RingPair, name: str) -> None:
        self.pair = pair
        self._writer = shm.RingWriter(pair.down, f"ring to agent {name}")
        self._reader = shm.RingReader(pair.up, f"ring from agent {name}", mark_from=Kind.END)
        bells = pair.supervisor_bell, pair.agent_bell
        self._straight = shm.Exchange(self._reader, self._writer, *bells, counted=False)
        self._queue: deque[bytes] = deque()
        self._sent = 0  # Of the first of the queue.

    def send(self, records: bytes) -> None:
        """Hand over records, now or when there is room."""
        if self._queue or not self._straight.send(records):
            self._queue.append(records)
            self.flush()

    def flush(self) -> None:
        """Push what fits; ring once if anything was pushed."""
        pushed = False
        while self._queue:
            reached = self._writer.push_many(self._queue[0], self._sent)
            pushed = pushed or reached > self._sent
            if reached < len(self._queue[0]):
                self._sent = reached
                break
            self._queue.popleft()
            self._sent = 0
        if pushed:
            self.pair.agent_bell.ring()

    def drain(self) -> bytes:
        """As `take`, the records alone."""
        return self.take().data

    def take(self) -> shm.Taken:
        """Everything that arrived; records that are not a guest's are marked.

        The bell was cleared before (`Rung.take`), so that no ring is lost.
        """
        taken = self._reader.take()
        if self._reader.awaited():
            self.pair.agent_bell.ring()  # It waits for the room just made.
        if self._queue:
            self.flush()
        return taken

    @property
    def received_bytes(self) -> int:
        """Bytes of records that arrived so far."""
        return self._reader.statistics.bytes

    def close(self) -> None:
        """Give the memory back: nothing more is sent or taken. Idempotent."""
        self._queue.clear()
        self._writer.close()
        self._reader.close()


class AgentEnd:
    """The agent process's end: all that a `workers.agent.channel.RingChannel` is made of.

    Attributes:
        exchange: Both rings and both bells in one.
    """

    def __init__(self, pair: RingPair) -> None:
        self._bell = pair.agent_bell
        self._reader = shm.RingReader(pair.down, "ring from the supervisor")
        self._writer = shm.RingWriter(pair.up, "ring to the supervisor")
        self._supervisor_bell = pair.supervisor_bell
        bells = self._bell, self._supervisor_bell
        self.exchange = shm.Exchange(self._reader, self._writer, *bells)

    def drain(self) -> bytes:
        """Records that arrived."""
        return self._reader.drain()

    def push_many(self, records: bytes, start: int) -> int:
        """Push records from offset ``start`` on; the offset that was reached.

        Nothing fitted: the caller waits for the bell, and the supervisor is told so.
        """
        reached = self._writer.push_many(records, start)
        if reached == start < len(records):
            self._writer.announce(waiting=True)
            self._supervisor_bell.ring()
        return reached

    def ring(self) -> None:
        """Ring the supervisor's bell, by name."""
        self._writer.announce()
        self._supervisor_bell.ring()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for one's own."""
        return self._bell.wait(timeout_s)
