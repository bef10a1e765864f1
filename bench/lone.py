"""A guest alone: in this process, with a channel that answers at once. No ring, no supervisor.

What is left is the crossing: from the end of a turn out of the guest, its records checked and
digested, the next events in, to the end of the next turn.
"""

import json
import time
from functools import cache
from itertools import pairwise

from lockstep.bench.contestant import GUESTS
from lockstep.engine.errors import UsageError
from lockstep.engine.record import Kind, encode, encode_wake
from lockstep.workers.agent.modules import compile_module
from lockstep.workers.agent.process import EXIT_LEFT, AgentSpec, agent_main, prepared

BYTES = 64  # Of a message in, and of the one that is the answer.
HOPS = 10**9


class Answers:
    """The channel of one agent: START, then the same message for so many turns, then the end.

    Attributes:
        stamps_ns: When each turn's events were handed over, and when the last turn had ended.
    """

    def __init__(self, turns: int) -> None:
        settings = {"hops": HOPS, "tokens": 0, "bytes": BYTES}
        roster = {"agents": ["agent"], "models": [], "topics": [], "tools": [], "sources": []}
        start = json.dumps({**roster, "agent": "agent", "config": settings}).encode()
        message = encode(Kind.MESSAGE, bytes(BYTES), id=HOPS, peer=0)
        events = [encode(Kind.START, start, item=1, peer=0), *[message] * turns]
        self._wakes = [encode_wake(n, n, 0, each, 1) for n, each in enumerate(events, 1)]
        self._wakes.reverse()
        self.stamps_ns: list[int] = []

    def send(self, records: bytes) -> None:
        """Taken, and forgotten."""

    def receive(self) -> bytes:
        """The next wake, or SHUTDOWN."""
        self.stamps_ns.append(time.perf_counter_ns())
        return self._wakes.pop() if self._wakes else encode(Kind.SHUTDOWN)

    def exchange(self, records: bytes) -> bytes:
        """`receive`."""
        return self.receive()


@cache
def spec(guest: str) -> AgentSpec:
    """An agent of bench/guests, compiled once."""
    return AgentSpec(
        name="agent",
        index=0,
        replica=0,
        seed=0,
        code=compile_module((GUESTS / f"{guest}.wasm").read_bytes(), path=guest),
        memory_bytes_max=16 << 20,
        turn_fuel_max=10**9,
        turn_out_bytes_max=1 << 20,
        record_bytes_max=1 << 16,
        log_lines_max=0,
        log_bytes_max=0,
        table_elements_max=1_000,
        frozen_epoch_us=0,
        step_us=1_000,
    )


def turns_ns(guest: str, turns: int) -> list[int]:
    """How long each of so many turns took, the one with START left out.

    Raises:
        UsageError: the guest ended before.
    """
    channel, made = Answers(turns), prepared(spec(guest))
    status = agent_main(spec(guest), channel, guest=made)
    if status != EXIT_LEFT or len(channel.stamps_ns) != turns + 2:
        had = len(channel.stamps_ns)
        raise UsageError(f"{guest}: ended with status {status} after {had} of {turns + 1} turns")
    return [after - before for before, after in pairwise(channel.stamps_ns[1:])]
