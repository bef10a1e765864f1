"""Simulator: sequencer and planner as two actors with random physical timings and latencies.

One process, no clock: an event queue carries turns, step executions and messages between the two
actors, each with a random physical duration from ``physical_seed``. Everything logical comes
from ``fleet_seed``. So all physical seeds of one fleet must give one history; a rule that lets
timing through shows up as a second digest (an atomic model cannot see a stale grant).

Repeat one case:  python tests/support/simulator.py FLEET_SEED PHYSICAL_SEED
"""

from __future__ import annotations

import heapq
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lockstep.engine import actions
from lockstep.engine.digest import Digest
from lockstep.engine.effects import Turn
from lockstep.engine.fleet import Fleet
from lockstep.engine.fleet_file import parse
from lockstep.engine.items import InputItem
from lockstep.engine.plan import FINISH_STATUS, Request, StepPlan
from lockstep.engine.planner import ModelLimits, Planner
from lockstep.engine.record import Kind, Outcome, Record, decode, decode_at, encode
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.stepper import Stepper
from lockstep.engine.wire import RESULT_SLOT, FromEngine, StepReport, step_report

_PROMPT = struct.Struct("<IIIII")  # prompt tokens, out max, priority, timeout steps, salt
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
    steps: int
    tickets: int
    failures: tuple[tuple[str, str], ...]


def make_fleet(seed: int) -> tuple[Fleet, list[InputItem]]:
    """A random fleet and its input."""
    rng = random.Random(f"fleet {seed}")
    policy = rng.choice(["events", "round-robin", "dag", "dag"])
    lines = [
        "[fleet]",
        f"seed = {seed}",
        f"turns_max = {rng.choice([40, 100_000, 100_000, 100_000])}",
        f"steps_max = {rng.choice([60, 1_000_000, 1_000_000, 1_000_000])}",
        "[schedule]",
        f'policy = "{policy}"',
        f"lookahead = {rng.choice([0, 1, 1, 1, 2, 5])}",
        "fuel_per_step = 1000",
        f"items_in_flight_max = {rng.choice([1, 2, 5, 64])}",
        f"items_reordered_max = {rng.choice([1, 3, 100])}",
        f"rounds_max = {rng.choice([1, 2, 3])}",
        f"credit = {rng.choice([1, 4, 50])}",
    ]
    models = rng.choice([1, 1, 2])
    for index in range(models):
        lines += [
            f"[models.m{index}]",
            'path = "none"',
            f"rows_max = {rng.choice([1, 2, 4, 16])}",
            f"prefill_tokens_per_step = {rng.choice([3, 7, 64])}",
            f"period = {rng.choice([1, 1, 2, 3])}",
        ]
    names: list[str] = []
    for index in range(rng.randint(1, 6)):
        name = f"a{index}"
        lines += [f"[agents.{name}]", 'module = "none"', f"delay = {rng.choice([1, 1, 3])}"]
        if rng.random() < 0.3:
            lines.append(f"replicas = {rng.randint(1, 4)}")
        if policy == "dag" and names and rng.random() < 0.7:
            after = rng.sample(names, rng.randint(1, min(2, len(names))))
            lines.append(f"after = {after!r}".replace("'", '"'))
            if rng.random() < 0.3:
                lines.append('input = "deal"')
        elif policy == "events" and (not names or rng.random() < 0.4):
            lines.append(f'input = "{rng.choice(["broadcast", "deal"])}"')
        names.append(name)
    items = [InputItem(n, b"%d" % n) for n in range(rng.choice([0, 1, 7, 20]))]
    return parse("\n".join(lines).encode(), f"fleet {seed}"), items


@dataclass
class ScriptedAgent:
    """A pure function of its events, standing in for a guest: no physical time in it."""

    name: str
    agents: int
    models: int
    seed: int
    round_robin: bool
    turn: int = 0
    requests: int = 0
    waits: dict[int, int] = field(default_factory=dict)  # Item -> answers it waits for.
    owner: dict[int, int] = field(default_factory=dict)  # Request -> item.

    def run(self, events: list[Record]) -> Turn:
        """The agent's next turn."""
        rng = random.Random(f"{self.seed} {self.name} {self.turn}")
        number, self.turn = self.turn, self.turn + 1
        out: list[bytes] = []
        for event in events:
            self._on_event(event, rng, out)
        fuel = rng.choice([10, 100, 500, 999, 1000, 2500, rng.randint(0, 30_000)])
        data = b"".join(out)
        luck = rng.random()
        if luck < 0.01:
            return Turn(number, fuel, Outcome.TRAPPED, "unreachable", data)
        if luck < 0.015:
            return Turn(number, fuel, Outcome.RETURNED, "", data)
        if luck < 0.02:
            data += encode(Kind.SUBSCRIBE)  # Not served: a protocol failure.
        return Turn(number, fuel, Outcome.BLOCKED, "", data)

    def _on_event(self, event: Record, rng: random.Random, out: list[bytes]) -> None:
        kind = event.kind
        if kind == Kind.ITEM and event.item not in self.waits:
            self._work(event.item, rng, out)
        elif kind in (Kind.RESULT, Kind.CANCELLED):
            self._answered(event, rng, out)
        elif kind == Kind.MESSAGE and event.payload and event.payload[0] > 0:
            hops = bytes([event.payload[0] - 1])
            peer = rng.randrange(self.agents)
            out.append(encode(Kind.SEND, hops, item=event.item, peer=peer))
            if rng.random() < 0.3:
                self._infer(0, rng, out)
        elif kind == Kind.TIMER and rng.random() < 0.3:
            self._infer(0, rng, out)
        if rng.random() < 0.15:
            out.append(
                encode(Kind.SEND, bytes([rng.randrange(4)]), peer=rng.randrange(self.agents))
            )
        if rng.random() < 0.1:
            steps = struct.pack("<Q", rng.choice([1, 2, 9, 40]))
            out.append(encode(Kind.SET_TIMER, steps, id=self.turn))
        if rng.random() < 0.1:
            out.append(encode(Kind.LOG, b"log line", id=1))

    def _work(self, item: int, rng: random.Random, out: list[bytes]) -> None:
        count = rng.choice([0, 1, 1, 2, 3])
        self.waits[item] = count
        for _ in range(count):
            self._infer(item, rng, out)
        if count == 0:
            self._emit(item, rng, out)
        elif rng.random() < 0.1:
            out.append(encode(Kind.CANCEL, id=self.requests))

    def _answered(self, event: Record, rng: random.Random, out: list[bytes]) -> None:
        item = self.owner.pop(event.id)
        if item:
            self.waits[item] -= 1
            if self.waits[item] == 0:
                self._emit(item, rng, out, event.payload)

    def _infer(self, item: int, rng: random.Random, out: list[bytes]) -> None:
        self.requests += 1
        self.owner[self.requests] = item
        payload = _PROMPT.pack(
            rng.choice([1, 2, 5, 30]),
            rng.choice([1, 2, 8, 20]),
            rng.choice([0, 0, 0, 1, 7]),
            rng.choice([0, 0, 0, 3, 10]),
            rng.randrange(3),
        )
        out.append(
            encode(
                Kind.INFER, payload, id=self.requests, item=item, peer=rng.randrange(self.models)
            )
        )

    def _emit(
        self, item: int, rng: random.Random, out: list[bytes], payload: bytes = b"{}"
    ) -> None:
        del self.waits[item]
        if rng.random() < 0.97:  # Else it stalls, or in round-robin passes on nothing.
            out.append(encode(Kind.EMIT, payload, item=item))
        if self.round_robin and rng.random() < 0.05:
            out.append(encode(Kind.DONE, item=item))


class Engine:
    """The inference actor: stepper, planner, and a model that hashes."""

    def __init__(self, fleet: Fleet, stepper_type: type[Stepper]) -> None:
        models = [
            ModelLimits(m.rows_max, m.prefill_tokens_per_step, m.period) for m in fleet.models
        ]
        planner = Planner(models, fleet.schedule.priority_steps)
        self.stepper = stepper_type(planner, fleet.schedule.lookahead)
        self.inbox: list[actions.Action] = []
        self.busy = False
        self._requests: dict[int, tuple[Request, Record]] = {}

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

    def _offer(self, message: actions.Issue) -> None:
        ticket = message.ticket
        record, _ = decode_at(message.record, 0)
        length, out_max, priority, timeout, salt = _PROMPT.unpack(record.payload)
        request = Request(
            ticket.number,
            ticket.due,
            record.peer,
            (ticket.agent, str(salt)),
            tuple((salt + i) % 7 for i in range(length)),
            out_max,
            frozenset({0}),
            priority,
            timeout,
            "too long" if length == 30 and out_max == 20 else "",
        )
        self._requests[ticket.number] = (request, record)
        self.stepper.offer(request)

    def execute(self, plan: StepPlan) -> StepReport:
        """Run a plan on the hashing model."""
        rows: list[tuple[int, int, int, int, int, int]] = []
        sampled: dict[int, int | None] = {}
        for model in plan.models:
            m = model.model
            rows += [(FromEngine.EVICT, m, slot, 0, 0, 0) for slot in model.evicted]
            rows += [(FromEngine.ADMIT, m, a.slot, a.ticket, a.hit, 0) for a in model.admitted]
            for chunk in model.chunks:
                size = len(chunk.tokens)
                rows.append((FromEngine.CHUNK, m, chunk.slot, chunk.ticket, chunk.start, size))
                if chunk.last:
                    sampled[chunk.ticket] = self._token(chunk.ticket, chunk.start + size)
                    rows.append((FromEngine.TOKEN, m, chunk.slot, chunk.ticket,
                                 sampled[chunk.ticket] or 0, 0))  # fmt: skip
            for row in model.decodes:
                sampled[row.ticket] = self._token(row.ticket, row.past + 1)
                rows.append(
                    (FromEngine.TOKEN, m, row.slot, row.ticket, sampled[row.ticket] or 0, row.past)
                )
        records = b""
        for end in self.stepper.commit(sampled):
            request, record = self._requests.pop(end.ticket)
            status = FINISH_STATUS[end.reason]
            rows.append((FromEngine.END, 0, 0, end.ticket, status, len(request.prompt)))
            kind = Kind.CANCELLED if end.reason == "cancelled" else Kind.RESULT
            payload = f"{end.ticket} {end.reason} {plan.step}".encode()
            records += encode(kind, payload, id=record.id, item=record.item, peer=record.peer)
        rows.append((FromEngine.STEP, 0, 0, 0, plan.step, 0))
        return step_report(np.array(rows, dtype=RESULT_SLOT), records)

    def _token(self, ticket: int, position: int) -> int | None:
        request, _ = self._requests[ticket]
        value = hash_of(str(request.conversation), position, request.tokens_out_max)
        return None if value % 97 == 0 else value % 13


def hash_of(text: str, *numbers: int) -> int:
    """A small stable hash (Python's own is salted)."""
    value = 1469598103934665603
    for byte in f"{text} {numbers}".encode():
        value = ((value ^ byte) * 1099511628211) & (2**64 - 1)
    return value >> 20


class Simulation:
    """One run: the physical world as a queue of (time, number, what happens)."""

    def __init__(
        self,
        fleet_seed: int,
        physical_seed: int,
        sequencer_type: type[Sequencer] = Sequencer,
        stepper_type: type[Stepper] = Stepper,
    ) -> None:
        self.fleet, items = make_fleet(fleet_seed)
        self._rng = random.Random(f"physical {fleet_seed} {physical_seed}")
        # Each party has its own speed: some physical seeds have slow agents, others slow engines.
        self._pace = {who: self._rng.choice([0.01, 1.0, 30.0]) for who in ("turn", "step", "wire")}
        self._agent_pace = [self._rng.choice([0.1, 1.0, 20.0]) for _ in self.fleet.agents]
        self._sequencer = sequencer_type(self.fleet, items)
        self._engine = Engine(self.fleet, stepper_type)
        self._digest = Digest(b"")
        round_robin = self.fleet.schedule.policy == "round-robin"
        self._agents = [
            ScriptedAgent(a.name, len(self.fleet.agents), len(self.fleet.models), fleet_seed,
                          round_robin)
            for a in self.fleet.agents
        ]  # fmt: skip
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._now = 0.0
        self._number = 0
        self._wires = {"to engine": 0.0, "to sequencer": 0.0}
        self._outputs: list[bytes] = []
        self._entries: list[bytes] = []
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
        self._pump()
        events = 0
        while self._finish is None:
            events += 1
            assert self._queue, "deadlock: nothing is under way and the run has not ended"
            assert events < EVENTS_MAX, "the run never ends"
            self._now, _, happen = heapq.heappop(self._queue)
            happen()
        world = self._sequencer.world
        assert len(world.items) == world.items.finished + world.items.failed
        return Run(
            self._digest.digest,
            self._digest.digest_text,
            self._finish.state,
            self._finish.reason,
            tuple(self._outputs),
            tuple(self._entries),
            world.counts.steps,
            world.requests.issued,
            tuple(world.failures),
        )

    def _pump(self) -> None:
        for action in self._sequencer.pump():
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
                case actions.Output():
                    self._outputs.append(action.line)
                case actions.Finish():
                    self._finish = action

    def _start_turn(self, agent: int, events: list[Record]) -> None:
        turn = self._agents[agent].run(events)
        pace = self._pace["turn"] * self._agent_pace[agent]
        if self._rng.random() < 0.5:
            self._after(pace * 0.5, lambda: self._progress(agent, turn))
        self._after(pace, lambda: self._turn_ended(agent, turn))

    def _progress(self, agent: int, turn: Turn) -> None:
        self._sequencer.fuel_published(agent, turn.number, turn.fuel // 2)
        self._pump()

    def _turn_ended(self, agent: int, turn: Turn) -> None:
        self._sequencer.turn_ended(agent, turn)
        self._pump()

    def _to_engine(self, message: actions.Action) -> None:
        def arrive() -> None:
            self._engine.inbox.append(message)
            self._turn_engine()

        self._wire("to engine", arrive)

    def _turn_engine(self) -> None:
        engine = self._engine
        if engine.busy:
            return
        engine.drain()
        step = engine.stepper.runnable()
        if step is None:
            return
        engine.busy = True
        plan = engine.stepper.plan(step)

        def executed() -> None:
            report = engine.execute(plan)
            engine.busy = False
            self._wire("to sequencer", lambda: self._step_reported(report))
            self._turn_engine()

        self._after(self._pace["step"], executed)

    def _step_reported(self, report: StepReport) -> None:
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


if __name__ == "__main__":
    result = Simulation(int(sys.argv[1]), int(sys.argv[2])).run()
    print(result.digest, result.state, result.reason, result.steps, result.tickets)
    print(*result.outputs, sep="\n")
    print(*result.failures, sep="\n")
