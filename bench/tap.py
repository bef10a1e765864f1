"""Tap: a real supervisor with a watch held to its sequencer, in a process of its own.

``python -m lockstep.bench.tap [bare] [hops] [requests] [profiled] READ WRITE``, with a job on
standard input as any supervisor gets it. The loop, the processes, rings, journal and output are
those of every run; only the sequencer notes the wall clock when the supervisor calls it, and stops
at the end of a round until the next is asked for. So nothing of the product has a switch for
measuring, and nothing is left out (but the journal, with ``bare``). In the agents' processes
nothing is measured unless ``hops`` asks for it.

Once every agent has ended its turn 0 it says hello: ``{"agents", "start_ns"}`` (from the first
fork). Then each ``{"turns": N}`` is answered with what happened until N turns had ended:

``ns``        from the moment it went on to the end of the last turn
``turns``     that ended, N or a few more
``messages``  that took effect
``times_ns``  from one waking of agents to the next
``hops_ns``   with ``hops``: from a send in one agent's process to its receipt in the other's

Hops are right where one message is under way (a ring with one token). With ``{"turns": 0}`` the
run goes to its end, and the answer comes then; with ``requests`` it has what bench/watch.py saw.
"""

import lockstep.workers.hot  # noqa: F401 (first of all, as in the supervisor)

# isort: split
import json
import mmap
import os
import struct
import sys
import time
from typing import Any

from lockstep.bench.watch import RequestWatch
from lockstep.engine import actions
from lockstep.engine.effects import Turn
from lockstep.engine.history import Entry
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.wire import StepReport
from lockstep.workers import beginning, supervisor, tasks
from lockstep.workers.agent.channel import Channel
from lockstep.workers.agent.process import AgentSpec, agent_main
from lockstep.workers.crew import Crew
from lockstep.workers.ledger import Ledger

AGENTS_MAX = 4096
STAMP = struct.Struct("<QQ")  # perf_counter_ns of an agent's last send and its last receipt.


class Tap:
    """The watch, and the line to who asks for rounds."""

    def __init__(
        self, reading: int, writing: int, watch: RequestWatch | None = None, hops: bool = False
    ) -> None:
        self._watch = watch
        self._hops = hops
        self._requests = os.fdopen(reading, "rb", buffering=0)
        self._answers = os.fdopen(writing, "wb", buffering=0)
        self._stamps = mmap.mmap(-1, AGENTS_MAX * STAMP.size)  # Shared with the agents.
        self._agents = 0
        self._started = False
        self._begun_ns = 0  # Of the round, or of the first fork.
        self._turns_max = 0  # Of the round; 0: no end.
        self._turns = self._messages = 0
        self._sender = -1
        self._times_ns: list[int] = []
        self._hops_ns: list[int] = []
        self._woken_ns = 0

    def begin(self, agents: int) -> None:
        """The first fork comes now."""
        self._agents = self._turns_max = agents
        self._begun_ns = time.perf_counter_ns()

    def turn_ended(self, agent: int) -> None:
        """A turn is complete, and the supervisor has it."""
        self._turns += 1
        if not self._hops:
            return
        received = STAMP.unpack_from(self._stamps, agent * STAMP.size)[1]
        if self._sender >= 0 and self._started:
            sent = STAMP.unpack_from(self._stamps, self._sender * STAMP.size)[0]
            self._hops_ns.append(received - sent)
        self._sender = agent

    def before_pump(self, messages: int) -> None:
        """Stop here if the round is over.

        Raises:
            KeyboardInterrupt: nobody asks any more; the run is closed as by a person.
        """
        if not 0 < self._turns_max <= self._turns:
            return
        if not self._started:
            self._started = True
            self._say({"agents": self._agents, "start_ns": time.perf_counter_ns() - self._begun_ns})
        else:
            self._say(self._round(messages))
        self._next(messages)

    def after_pump(self, done: list[actions.Action]) -> None:
        """Note when agents were woken, or the end of the run."""
        now = time.perf_counter_ns()
        if any(isinstance(action, actions.Wake) for action in done):
            if self._woken_ns:
                self._times_ns.append(now - self._woken_ns)
            self._woken_ns = now
        if self._watch is not None:
            self._watch.issued(done)

    def step_reported(self, report: StepReport) -> None:
        """The model has done a step, and the supervisor has it."""
        if self._watch is not None:
            self._watch.reported(report)

    def finished(self, messages: int) -> None:
        """The run is over: whatever round it was."""
        seen = self._watch.to_json() if self._watch is not None else {}
        self._say(self._round(messages) | seen)
        self._turns_max = 0

    def channel(self, index: int, channel: Channel) -> "StampedChannel":
        """An agent's channel that notes when it sends and receives."""
        return StampedChannel(channel, memoryview(self._stamps)[index * STAMP.size :].cast("Q"))

    def _round(self, messages: int) -> dict[str, Any]:
        return {
            "ns": time.perf_counter_ns() - self._begun_ns,
            "turns": self._turns,
            "messages": messages - self._messages,
            "times_ns": self._times_ns,
            "hops_ns": self._hops_ns,
        }

    def _say(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer).encode() + b"\n")

    def _next(self, messages: int) -> None:
        line = self._requests.readline()
        if not line:
            raise KeyboardInterrupt
        self._turns_max = int(json.loads(line)["turns"])
        self._turns, self._messages, self._woken_ns = 0, messages, 0
        self._times_ns, self._hops_ns = [], []
        self._begun_ns = time.perf_counter_ns()


class StampedChannel:
    """A channel that leaves stamps in memory that the supervisor's process sees."""

    def __init__(self, inner: Channel, stamps: memoryview) -> None:
        self._inner = inner
        self._stamps = stamps

    def send(self, records: bytes) -> None:
        """As `Channel.send`."""
        self._stamps[0] = time.perf_counter_ns()
        self._inner.send(records)

    def receive(self) -> bytes:
        """As `Channel.receive`."""
        data = self._inner.receive()
        self._stamps[1] = time.perf_counter_ns()
        return data

    def exchange(self, records: bytes) -> bytes:
        """As `Channel.exchange`: the common turn's way."""
        self._stamps[0] = time.perf_counter_ns()
        data = self._inner.exchange(records)
        self._stamps[1] = time.perf_counter_ns()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def tapped_sequencer(tap: Tap) -> type[Sequencer]:
    """A sequencer class that tells the tap when it is called."""

    class Tapped(Sequencer):
        def turn_ended(self, agent: int, turn: Turn) -> None:
            tap.turn_ended(agent)
            super().turn_ended(agent, turn)

        def step_reported(self, report: StepReport) -> None:
            tap.step_reported(report)
            super().step_reported(report)

        def pump(self) -> list[actions.Action]:
            counts = self.world.counts
            tap.before_pump(counts.messages)
            done = super().pump()
            tap.after_pump(done)
            if self.finished:
                tap.finished(counts.messages)
            return done

    return Tapped


def tapped_crew(tap: Tap, base: type[Crew] = Crew) -> type[Crew]:
    """A crew class that tells the tap when the first agent is forked."""

    class Tapped(base):  # type: ignore[misc, valid-type]
        def start_agents(self, specs: list[AgentSpec], *more: Any) -> None:
            tap.begin(len(specs))
            super().start_agents(specs, *more)

    return Tapped


class BareLedger(Ledger):
    """A ledger that keeps no history, to measure what keeping one costs. The digests stay."""

    def append(self, entry: Entry) -> None:
        """The entry is gone."""
        self.entries += 1
        self._last = entry.body
        self._digest.add(entry)


def main() -> int:
    """Entry of the process."""
    watch = RequestWatch() if "requests" in sys.argv else None
    hops = "hops" in sys.argv
    tap = Tap(int(sys.argv[-2]), int(sys.argv[-1]), watch, hops)

    def stamped_main(spec: AgentSpec, channel: Channel, *more: Any) -> int:
        return agent_main(spec, tap.channel(spec.index, channel), *more)

    begun: Any = beginning
    begun.Sequencer = tapped_sequencer(tap)
    if "bare" in sys.argv:
        begun.Ledger = BareLedger
    patched: Any = supervisor
    patched.Crew = tapped_crew(tap)
    if hops:
        stamped: Any = tasks
        stamped.agent_main = stamped_main
    if "profiled" in sys.argv:
        from lockstep.workers.profile import supervising

        recorded: Any = supervising
        recorded.ProfiledCrew = tapped_crew(tap, supervising.ProfiledCrew)
        return supervisor.main(supervising.ProfiledSupervisor)
    return supervisor.main()


if __name__ == "__main__":
    sys.exit(main())
