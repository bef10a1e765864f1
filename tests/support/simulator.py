"""Simulator: sequencer and planner as two actors with random physical timings and latencies.

One process, no clock: an event queue carries turns, step executions and messages between the two
actors, each with a random physical duration from ``physical_seed``. Everything logical comes
from ``fleet_seed``. So all physical seeds of one fleet must give one history; a rule that lets
timing through shows up as a second digest (an atomic model cannot see a stale grant).

A run that something from outside reached, or in arrival order, has one history per live run:
what it kept must repeat it under every other physical timing.

Repeat one case:  python tests/support/simulator.py FLEET_SEED PHYSICAL_SEED [LIVE_SEED]
(LIVE_SEED: the physical seed of the live run that is repeated)
"""

from __future__ import annotations

import heapq
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fleetmaker import PROMPT, ScriptedAgent, make_fleet
from simslab import SimSlab

from lockstep.engine import actions, step_rows
from lockstep.engine.digest import Digest
from lockstep.engine.effects import Turn
from lockstep.engine.fleet import Fleet
from lockstep.engine.outside import What
from lockstep.engine.plan import (
    FINISH_STATUS,
    Chunk,
    Decode,
    ModelPlan,
    Outcome,
    Place,
    Request,
    StepPlan,
)
from lockstep.engine.planner import Planner, limits_of
from lockstep.engine.record import FLAG_ERROR, Kind, Record, decode, decode_at, encode
from lockstep.engine.restored import Again, Restored
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.stepper import Stepper
from lockstep.engine.wire import RESULT_SLOT, FromEngine, StepReport, step_report

EVENTS_MAX = 400_000  # Physical events after which a run counts as hung.


@dataclass(frozen=True)
class Run:
    """What one simulated run came to."""

    digest: str
    digest_text: str
    state: str
    reason: str
    outputs: tuple[bytes, ...]
    entries: tuple[bytes, ...]
    kept: tuple[bytes, ...]
    regenerative: bool
    steps: int
    tickets: int
    failures: tuple[tuple[str, str], ...]


class Engine:
    """The inference actor: stepper, planner, and a model that hashes what its slots hold."""

    def __init__(
        self,
        fleet: Fleet,
        stepper_type: type[Stepper],
        repeats: bool,
        slab: SimSlab | None = None,
    ) -> None:
        models = [limits_of(model) for model in fleet.models]
        planner = Planner(models, fleet.schedule.priority_steps)
        self.arrival = fleet.schedule.order == "arrival"
        lookahead = 0 if self.arrival else fleet.schedule.lookahead
        self.stepper = stepper_type(planner, lookahead, self.arrival and not repeats)
        self.inbox: list[actions.Action] = []
        self.plan: StepPlan | None = None  # That is being executed.
        self.slab = SimSlab() if slab is None else slab
        self._requests: dict[int, tuple[Request, Record]] = {}
        self._said: dict[tuple[int, int], list[int]] = {}  # By ticket and sample.

    def drain(self) -> None:
        """Take everything that has arrived, in order."""
        for message in self.inbox:
            match message:
                case actions.Issue():
                    self._offer(message)
                case actions.Revoke():
                    self.stepper.cancel(message.ticket, message.due)
                case actions.Grant():
                    self.stepper.grant(message.limit, message.applied)
        self.inbox = []

    def restore(self, past: Restored) -> None:
        """Become, from new, the engine that ran the steps of a record."""
        requests = {}
        for asked in past.asked:
            requests[asked.ticket] = self._request(*asked[:3], asked.record)
        for again in past.again:
            self._relive(again, requests)
        for kept in (*past.kept, *past.left):
            self._said[kept.ticket, kept.sample] = list(kept.tokens)
        self.stepper.restore(past, requests)

    def _relive(self, again: Again, requests: dict[int, Request]) -> None:
        chunks = [
            Chunk(c.ticket, c.slot, c.start, requests[c.ticket].prompt[c.start : c.start + c.size],
                  c.slot in again.said, c.sample)
            for c in again.chunks
        ]  # fmt: skip
        part = ModelPlan(
            again.model,
            copies=again.copies,
            chunks=tuple(chunks),
            decodes=again.decodes,
            lengths=again.lengths,
        )
        list(self.slab.run(None, part, self._whose))
        lengths = {c.slot: c.start + len(c.tokens) for c in chunks}
        lengths |= {d.slot: d.past + 1 for d in again.decodes}
        for slot, said in again.said.items():
            token = self._token(again.model, slot, said.ticket, said.sample, lengths[slot])
            assert token == said.token, f"step {again.step}, slot {slot}: another token"

    def _offer(self, message: actions.Issue) -> None:
        ticket = message.ticket
        request = self._request(ticket.number, ticket.agent, ticket.due, message.record)
        self.stepper.offer(request)

    def _request(self, ticket: int, agent: int, due: int, data: bytes) -> Request:
        record, _ = decode_at(data, 0)
        request = request_of(ticket, agent, due, record)
        self._requests[ticket] = (request, record)
        return request

    def _whose(self, ticket: int, sample: int) -> tuple[int, int]:
        if ticket not in self._requests:
            return (0, 0)  # Of a row that nobody needs any more.
        agent, salt = self._requests[ticket][0].conversation
        return (agent, int(salt)) if sample == 0 else (-2 - sample, ticket)

    def execute(self, plan: StepPlan) -> StepReport:
        """Run a plan on the hashing model."""
        rows: list[step_rows.Row] = []
        if self.arrival:
            rows += [(FromEngine.TAKEN, what, 0, t, due, 0) for what, t, due in plan.taken]
        outcomes: dict[Place, Outcome] = {}
        for part in plan.models:
            rows += step_rows.planned(part)
            self._run(plan.step, part, outcomes)
            rows += step_rows.drawn(part, outcomes)
        booked = self.stepper.commit(outcomes)
        rows += step_rows.left(booked)
        records = b""
        for end in booked.ended:
            request, record = self._requests.pop(end.ticket)
            status = FINISH_STATUS[end.reason]
            rows.append((FromEngine.END, 0, 0, end.ticket, status, len(request.prompt)))
            kind = Kind.CANCELLED if end.reason == "cancelled" else Kind.RESULT
            payload = f"{end.ticket} {end.reason} {plan.step}".encode()
            records += encode(kind, payload, id=record.id, item=record.item, peer=record.peer)
        rows.append((FromEngine.STEP, 0, 0, 0, plan.step, 0))
        return step_report(np.array(rows, dtype=RESULT_SLOT), records)

    def begun(self, plan: StepPlan) -> Iterator[None]:
        """What happens in the slots, for who loses the engine in the middle of it."""
        for part in plan.models:
            yield from self.slab.run(plan.step, part, self._whose)

    def _run(self, step: int, part: ModelPlan, outcomes: dict[Place, Outcome]) -> None:
        for _ in self.slab.run(step, part, self._whose):
            pass
        for row in (*part.chunks, *part.decodes):
            said = self._said.setdefault((row.ticket, row.sample), [])
            if isinstance(row, Decode):
                length, last = row.past + 1, True
            else:
                length, last = row.start + len(row.tokens), row.last
            tokens = [*self._requests[row.ticket][0].prompt, *said]
            whose = self._whose(row.ticket, row.sample)
            self.slab.check(part.model, row.slot, tokens[:length], whose)
            if last:
                assert length == len(tokens), "a row's last token is not fed"
                token = self._token(part.model, row.slot, row.ticket, row.sample, length)
                outcomes[part.model, row.slot] = Outcome(token)
                said.append(token or 0)

    def _token(self, model: int, slot: int, ticket: int, sample: int, length: int) -> int | None:
        """Often what the next prompt of the conversation has there."""
        request, _ = self._requests[ticket]
        value = hash_of(str(request.conversation), self.slab.last(model, slot, length), sample)
        if value % 97 == 0:
            return None
        return value % 13 if value % 4 == 0 else (int(request.conversation[1]) + length) % 7


def request_of(ticket: int, agent: int, due: int, record: Record) -> Request:
    """What an agent's record asks for."""
    length, out_max, priority, timeout, salt = PROMPT.unpack(record.payload)
    length = {5: 12}.get(length, length)  # Enough to be copied.
    return Request(
        ticket,
        due,
        record.peer,
        (agent, str(salt)),
        tuple((salt + i) % 7 for i in range(length)),
        out_max,
        frozenset({0}),
        priority,
        timeout,
        "too long" if length == 30 and out_max == 20 else "",
        1 + salt if out_max == 2 else 1,
    )


def hash_of(text: str, *numbers: int) -> int:
    """A small stable hash (Python's own is salted)."""
    value = 1469598103934665603
    for byte in f"{text} {numbers}".encode():
        value = ((value ^ byte) * 1099511628211) & (2**64 - 1)
    return value >> 20


class Simulation:
    """One run: the physical world as a queue of (time, number, what happens).

    Args:
        fleet_seed: Everything logical.
        physical_seed: Everything physical, outside events of a live run included.
        sequencer_type: Of which the mutants are subclasses.
        stepper_type: Likewise.
        recorded: What a run kept, to repeat it; None: live.
    """

    def __init__(
        self,
        fleet_seed: int,
        physical_seed: int,
        sequencer_type: type[Sequencer] = Sequencer,
        stepper_type: type[Stepper] = Stepper,
        recorded: Sequence[bytes] | None = None,
    ) -> None:
        self._fleet_seed = fleet_seed
        self.fleet, items = make_fleet(fleet_seed)
        self._rng = random.Random(f"physical {fleet_seed} {physical_seed}")
        # Each party has its own speed: some physical seeds have slow agents, others slow engines.
        paces = ("turn", "step", "wire", "outside")
        self._pace = {who: self._rng.choice([0.01, 1.0, 30.0]) for who in paces}
        self._agent_pace = [self._rng.choice([0.1, 1.0, 20.0]) for _ in self.fleet.agents]
        self._live = recorded is None
        self._settles = physical_seed % 2 == 1  # As where somebody reads a stream of tokens.
        self._sequencer = sequencer_type(self.fleet, items, recorded)
        self._engine = Engine(self.fleet, stepper_type, not self._live)
        self._digest = Digest(b"")
        agents = range(len(self.fleet.agents))
        self._agents = [ScriptedAgent(self.fleet, index, fleet_seed) for index in agents]
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._now = 0.0
        self._number = 0
        self._wires = {"to engine": 0.0, "to sequencer": 0.0}
        self._outputs: list[bytes] = []
        self._entries: list[bytes] = []
        self._kept: list[bytes] = []
        self._tools: dict[int, None] = {}  # Calls whose command runs.
        self._last_ticket = 0
        self._finish: actions.Finish | None = None

    def run(self) -> Run:
        """Until the run ends.

        Raises:
            AssertionError: it hangs (nothing is under way) or never ends.
        """
        self._sequencer.start()
        for agent in range(len(self._agents)):
            self._start_turn(agent, [])
        if self._live:
            self._open_sources()
        self._pump()
        events = 0
        while self._finish is None:
            events += 1
            assert self._queue, "deadlock: nothing is under way and the run has not ended"
            assert events < EVENTS_MAX, "the run never ends"
            self._now, _, happen = heapq.heappop(self._queue)
            happen()
            if self._finish is None:
                self.disturb()
        world = self._sequencer.world
        assert len(world.items) == world.items.finished + world.items.failed
        return Run(
            self._digest.digest,
            self._digest.digest_text,
            self._finish.state,
            self._finish.reason,
            tuple(self._outputs),
            tuple(self._entries),
            tuple(self._kept),
            self._sequencer.regenerative,
            world.counts.steps,
            world.requests.issued,
            tuple(world.failures),
        )

    def disturb(self) -> None:
        """After each physical event: a place for accidents (tests/support/crashing.py)."""

    def _pump(self) -> None:
        self._perform(self._sequencer.pump())
        if self._settles and self._finish is None:
            self._perform(self._sequencer.settle())

    def _perform(self, done: list[actions.Action]) -> None:
        for action in done:
            match action:
                case actions.Wake():
                    self._start_turn(action.agent, list(decode(action.events)))
                case actions.Issue():
                    assert action.ticket.number == self._last_ticket + 1, "tickets rise by one"
                    self._last_ticket += 1
                    self._to_engine(action)
                case actions.Revoke() | actions.Grant():
                    self._to_engine(action)
                case actions.Append():
                    self._digest.add(action.entry)
                    self._entries.append(action.entry.body)
                case actions.Keep():
                    self._kept.append(action.record)
                case actions.CallTool() if self._live:
                    self._call_tool(action)
                case actions.StopTool():
                    self._tools.pop(action.call, None)
                case actions.Output():
                    self._outputs.append(action.line)
                case actions.Finish():
                    self._finish = action

    # -- what comes from outside, live only ----------------------------------------------------

    def _open_sources(self) -> None:
        for index, source in enumerate(self.fleet.sources):
            count = source.count or self._rng.randint(0, 6)
            self._feed(index, What.EVENT if source.to else What.ITEM, count)
        if person_acts(self._fleet_seed):
            what = self._rng.choice([What.CANCEL_ITEM, What.CANCEL_REQUEST] * 3 + [What.CANCEL_RUN])
            number = self._rng.randint(1, 12)
            self._after(self._pace["outside"] * 5, lambda: self._came(what, number, b"by a person"))

    def _feed(self, source: int, what: What, left: int) -> None:
        def come() -> None:
            if left:
                self._came(what, source, b'{"n":%d}' % left)
                self._feed(source, what, left - 1)
            elif self.fleet.sources[source].kind != "timer" or self.fleet.sources[source].count:
                self._came(What.CLOSED, source, b"")

        self._after(self._pace["outside"], come)

    def _call_tool(self, call: actions.CallTool) -> None:
        self._tools[call.call] = None

        def answer() -> None:
            if self._tools.pop(call.call, 0) is None:
                flags = FLAG_ERROR if self._rng.random() < 0.2 else 0
                self._came(What.TOOL, call.call, b"%d" % self._rng.randrange(9), flags)

        self._after(self._pace["outside"], answer)

    def _came(self, what: What, source: int, payload: bytes, flags: int = 0) -> None:
        self._sequencer.outside(what, source, payload, flags)
        self._pump()

    # -- turns and steps -----------------------------------------------------------------------

    def _start_turn(self, agent: int, events: list[Record]) -> None:
        process = self._agents[agent]
        turn = process.run(events)
        pace = self._pace["turn"] * self._agent_pace[agent]
        if self._rng.random() < 0.5:
            self._after(pace * 0.5, lambda: self._progress(process, turn))
        self._after(pace, lambda: self._turn_ended(process, turn))

    def _progress(self, process: ScriptedAgent, turn: Turn) -> None:
        if process is self._agents[process.index]:  # Else it died before.
            self._sequencer.fuel_published(process.index, turn.number, turn.fuel // 2)
            self._pump()

    def _turn_ended(self, process: ScriptedAgent, turn: Turn) -> None:
        if process is self._agents[process.index]:
            self._sequencer.turn_ended(process.index, turn)
            self._pump()

    def _to_engine(self, message: actions.Action) -> None:
        engine = self._engine

        def arrive() -> None:
            if engine is self._engine:
                engine.inbox.append(message)
                self._turn_engine()

        self._wire("to engine", arrive)

    def _turn_engine(self) -> None:
        engine = self._engine
        if engine.plan is not None:
            return
        engine.drain()
        step = engine.stepper.runnable()
        if step is None:
            return
        plan = engine.plan = engine.stepper.plan(step)

        def executed() -> None:
            if engine is self._engine:  # Else it died in the step.
                report = engine.execute(plan)
                engine.plan = None
                self._publish(engine, report)
                self._turn_engine()

        self._after(self._pace["step"], executed)

    def _publish(self, engine: Engine, report: StepReport) -> None:
        self._wire("to sequencer", lambda: self._step_reported(engine, report))

    def _step_reported(self, engine: Engine, report: StepReport) -> None:
        if engine is self._engine:
            self._sequencer.step_reported(report)
            self._pump()

    def _wire(self, name: str, arrive: Callable[[], None]) -> None:
        # A channel delays but never reorders.
        at = max(self._wires[name], self._now + self._pace["wire"] * self._rng.random())
        self._wires[name] = at
        self._put(at, arrive)

    def _after(self, mean: float, happen: Callable[[], None]) -> None:
        self._put(self._now + self._rng.expovariate(1.0) * mean, happen)

    def _put(self, at: float, happen: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (at, self._number, happen))


def one_history(fleet_seed: int) -> bool:
    """Whether a fleet has one history, however often it runs: nothing can come from outside."""
    fleet, _ = make_fleet(fleet_seed)
    outside = fleet.tools or fleet.sources or person_acts(fleet_seed)
    return not outside and fleet.schedule.order == "strict"


def person_acts(fleet_seed: int) -> bool:
    """Whether a person cancels something in the live runs of a fleet."""
    return random.Random(f"person {fleet_seed}").random() < 0.15


def simulate(fleet_seed: int, physical_seed: int, first: Run | None = None, **mutant: Any) -> Run:
    """One run; a repeat of ``first`` where that was not regenerative."""
    recorded = None if first is None or one_history(fleet_seed) else first.kept
    return Simulation(fleet_seed, physical_seed, recorded=recorded, **mutant).run()


if __name__ == "__main__":
    seed, physical, *live = map(int, sys.argv[1:])
    result = simulate(seed, physical, simulate(seed, live[0]) if live else None)
    print(result.digest, result.state, result.reason, result.steps, result.tickets)
    print(*result.outputs, sep="\n")
    print(*result.failures, sep="\n")
