"""A restored planner plans what the lost one would have; what slots held is made again."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import simulator
from fleetmaker import make_fleet

from lockstep.engine import step_rows
from lockstep.engine.again import rows_of
from lockstep.engine.errors import JournalCorrupt
from lockstep.engine.fleet import Fleet
from lockstep.engine.history import TICKET_PAYLOAD
from lockstep.engine.past import Earlier, Past
from lockstep.engine.plan import (
    FINISH_STATUS,
    Booked,
    Chunk,
    ModelPlan,
    Outcome,
    Place,
    Request,
    StepPlan,
)
from lockstep.engine.planner import ModelLimits, Planner, limits_of
from lockstep.engine.record import Kind, decode, decode_at, encode
from lockstep.engine.record import Outcome as TurnOutcome
from lockstep.engine.restore import Known, restore
from lockstep.engine.restored import Again, Asked, Restored
from lockstep.engine.stepper import Stepper
from lockstep.engine.wire import RESULT_SLOT, FromEngine

STOP = 0
AGENTS = 3
REUSE = ("moves", "copies", "samples", "shares", "left")
Sampled = dict[Place, Outcome]


def step_entry(plan: StepPlan, sampled: Sampled, booked: Booked) -> bytes:
    """A step as the inference process reports it (workers/inference/process.py)."""
    rows: list[tuple[int, ...]] = []
    for part in plan.models:
        rows += step_rows.planned(part)
        rows += step_rows.drawn(part, sampled)
    rows += step_rows.left(booked)
    ended = [*plan.ended, *booked.ended]
    rows += [(FromEngine.END, 0, 0, e.ticket, FINISH_STATUS[e.reason], 0) for e in ended]
    rows.append((FromEngine.STEP, 0, 0, 0, plan.step, 0))
    return encode(Kind.STEP, np.array(rows, dtype=RESULT_SLOT).tobytes(), id=plan.step)


@dataclass
class Slab:
    """Keys and values, played: what a position holds is how it was computed, and from what."""

    rows: list[int]
    held: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def run(self, part: ModelPlan) -> None:
        for copy in part.copies:
            for place in range(copy.start, copy.start + copy.count):
                cell = self.held[part.model, copy.source, place]
                self.held[part.model, copy.slot, place] = cell
        for c in part.chunks:
            for place, token in enumerate(c.tokens, c.start):
                self._write(part.model, c.slot, place, ("prefill", token, c.start, len(c.tokens)))
        if part.decodes:
            active = {row.slot: row for row in part.decodes}
            slots = range(min(active), max(active) + 1)
            shape = (slots.start, len(slots), part.lengths[slots.start : slots.stop])
            for slot in slots:
                if slot in active:
                    how = ("decode", active[slot].token, shape)
                    self._write(part.model, slot, active[slot].past, how)
                else:
                    self._write(part.model, slot, part.lengths[slot], ("idle",))

    def _write(self, model: int, slot: int, place: int, how: tuple[object, ...]) -> None:
        before = tuple(self.held.get((model, slot, p)) for p in range(place))
        self.held[model, slot, place] = hash((how, before))


class Stream:
    """A random stream of requests through a planner, and its record."""

    def __init__(self, seed: int, reuse: bool = False) -> None:
        rng = self._rng = random.Random(seed)
        limits = [
            ModelLimits(rng.randint(1, 4), rng.randint(3, 20), rng.randint(1, 2))
            for _ in range(rng.randint(1, 2))
        ]
        self._reuse = reuse
        if reuse:
            limits = [
                replace(m, rows_kept=rng.choice([0, 1, 3]), prefix_copies=rng.random() < 0.7)
                for m in limits
            ]
        self.limits = limits
        self.fleet: Any = SimpleNamespace(
            models=limits, schedule=SimpleNamespace(order="strict", lookahead=1)
        )
        self.planner = Planner(limits, 4)
        self.slab = Slab([m.rows_max for m in limits])
        self.entries: list[bytes] = []
        self.plans: list[tuple[int, StepPlan, Sampled]] = []  # With the entry of each.
        self.handed: list[tuple[int, str, tuple[Any, ...]]] = []  # Likewise.
        self.slabs: dict[int, dict[tuple[int, int, int], int]] = {}  # By entry.
        self.seen: dict[str, int] = {}
        self._said: dict[tuple[int, str], list[int]] = {}  # What a conversation came to.
        self._open: dict[int, Request] = {}
        self._ids: dict[int, tuple[int, int]] = {}
        self._tickets = 0

    def run(self, steps: int) -> "Stream":
        step = 0
        while step < steps:
            self._tag(step)
            if self._rng.random() < 0.1:
                step += self._rng.randint(1, 4)  # Nothing to do for a while; steps are skipped.
            if self.planner.next_step() is not None:
                self._step(step)
            step += 1
        return self

    def _tag(self, step: int) -> None:
        rng = self._rng
        body = encode(Kind.TAG, id=step)
        for _ in range(rng.choice([0, 0, 1, 1, 2, 4])):
            body += self._ask(step + rng.randint(0, 3))
        if self._open and rng.random() < 0.15:
            ticket, due = rng.choice(sorted(self._open)), step + rng.randint(0, 3)
            body += encode(Kind.REVOKE, due.to_bytes(8, "little"), id=ticket)
            self.planner.cancel(ticket, due)
            self.handed.append((len(self.entries), "cancel", (ticket, due)))
        self.entries.append(body)

    def _ask(self, due: int) -> bytes:
        rng = self._rng
        self._tickets += 1
        agent, name = rng.randrange(AGENTS), rng.choice("a" if self._reuse else "abcd")
        taken = [ids[1] for ids in self._ids.values() if ids[0] == agent]
        request = next(n for n in range(1, 99) if n not in taken)
        before = self._said.get((agent, name), [])
        prompt = (before if rng.random() < 0.7 else []) + rng.choices(range(9), k=rng.randint(1, 9))
        spec = {
            "model": rng.randrange(len(self.limits)),
            "name": name,
            "prompt": prompt[:40],
            "out": rng.randint(1, 8),
            "priority": rng.choice([0, 0, 1, 3]),
            "timeout": rng.choice([0, 0, 0, 6]),
            "refusal": rng.choice([""] * 9 + ["no"]),
        }
        if self._reuse:
            head = [rng.randrange(2), *[3] * 12]  # Many have much in common.
            fresh = rng.random() < 0.5 or not before
            spec["prompt"] = ([*head, *prompt] if fresh else before)[:60] + rng.choices(
                range(9), k=3
            )
            spec["samples"] = rng.choice([1, 1, 1, 1, 2, 3])
            spec["timeout"] = rng.choice([0] * 9 + [6])
        infer = encode(Kind.INFER, json.dumps(spec).encode(), id=request)
        asked = Asked(self._tickets, agent, due, 0, infer)
        self._open[asked.ticket] = request_of(asked)
        self._ids[asked.ticket] = agent, request
        self.planner.offer(self._open[asked.ticket])
        self.handed.append((len(self.entries), "offer", (self._open[asked.ticket],)))
        log = encode(Kind.LOG, b"x" * rng.randrange(9))
        payload = TICKET_PAYLOAD.pack(due, 0, request)
        effect = encode(Kind.EFFECT, log + infer, flags=TurnOutcome.BLOCKED, peer=agent)
        return effect + encode(Kind.TICKET, payload, id=asked.ticket, peer=agent)

    def _step(self, step: int) -> None:
        plan = self.planner.plan(step)
        sampled: Sampled = {}
        for part in plan.models:
            self._count(evictions=len(part.evicted), hits=sum(a.hit > 0 for a in part.admitted))
            self._count(moves=sum(c.move for c in part.copies))
            self._count(copies=sum(not c.move for c in part.copies))
            self._count(samples=sum(a.sample > 0 for a in part.admitted))
            self._count(shares=sum(a.shared >= 0 for a in part.admitted))
            self.slab.run(part)
            for row in [*(c for c in part.chunks if c.last), *part.decodes]:
                nan = self._rng.random() < 0.02
                token = None if nan else self._rng.choices(range(9), [1] + [3] * 8)[0]
                sampled[part.model, row.slot] = Outcome(token)
                request = self._open[row.ticket]
                said = self._said.setdefault(request.conversation, [])
                if token is not None and row.sample == 0:
                    said[:] = [*request.prompt, *said[len(request.prompt) :], token][
                        : 60 if self._reuse else 30
                    ]
        booked = self.planner.commit(sampled)
        self._count(left=len(booked.left))
        for end in (*plan.ended, *booked.ended):
            self._count(**{end.reason: 1})
            del self._open[end.ticket], self._ids[end.ticket]
        self.plans.append((len(self.entries), plan, sampled))
        self.slabs[len(self.entries)] = dict(self.slab.held)
        self.entries.append(step_entry(plan, sampled, booked))

    def _count(self, **more: int) -> None:
        for key, count in more.items():
            self.seen[key] = self.seen.get(key, 0) + count


def request_of(asked: Asked) -> Request:
    record, _ = decode_at(asked.record, 0)
    spec = json.loads(record.payload)
    return Request(
        asked.ticket, asked.due, spec["model"], (asked.agent, spec["name"]),
        tuple(spec["prompt"]), spec["out"], frozenset({STOP}), spec["priority"],
        spec["timeout"], spec["refusal"], spec.get("samples", 1),
    )  # fmt: skip


def restored_planner(stream: Stream, cut: int) -> tuple[Planner, Restored]:
    past = restore(Past(stream.entries[:cut]), stream.fleet)
    planner = Planner(stream.limits, 4)
    requests = {asked.ticket: request_of(asked) for asked in past.asked}
    Stepper(planner, 1).restore(past, requests)
    return planner, past


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_a_planner_restored_at_any_cut_plans_the_same_steps(seed: int, reuse: bool) -> None:
    stream = Stream(seed, reuse).run(40)
    for cut in range(0, len(stream.entries) + 1, 3):
        planner, _ = restored_planner(stream, cut)
        for entry, what, arguments in stream.handed:
            if entry >= cut:
                getattr(planner, what)(*arguments)
        for entry, plan, sampled in stream.plans:
            if entry >= cut:
                assert planner.plan(plan.step) == plan
                planner.commit(sampled)


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_what_slots_hold_is_made_again_in_the_recorded_composition(seed: int, reuse: bool) -> None:
    stream = Stream(seed, reuse).run(40)
    requests = {args[0].ticket: args[0] for _, what, args in stream.handed if what == "offer"}
    for cut in range(1, len(stream.entries) + 1, 4):
        _, past = restored_planner(stream, cut)
        slab = Slab([m.rows_max for m in stream.limits])
        for again in past.again:
            slab.run(plan_of(again, requests))
        before = [held for entry, held in stream.slabs.items() if entry < cut]
        wanted = before[-1] if before else {}
        for kept in past.kept:
            length = kept.filled + max(0, len(kept.tokens) - 1)
            for place in range(length):
                key = kept.model, kept.slot, place
                assert slab.held[key] == wanted[key], (cut, kept, place)


def plan_of(again: Again, requests: dict[int, Request]) -> ModelPlan:
    chunks = [
        Chunk(c.ticket, c.slot, c.start, requests[c.ticket].prompt[c.start : c.start + c.size],
              c.slot in again.said)
        for c in again.chunks
    ]  # fmt: skip
    return ModelPlan(
        again.model,
        copies=again.copies,
        chunks=tuple(chunks),
        decodes=again.decodes,
        lengths=again.lengths,
    )


def test_tokens_to_compare_are_the_recorded_ones_with_their_places() -> None:
    stream = Stream(3).run(40)
    _, past = restored_planner(stream, len(stream.entries))
    said: dict[int, dict[int, int]] = {}
    for again in past.again:
        for ticket, _, place, token in again.said.values():
            said.setdefault(ticket, {})[place] = token
    compared = 0
    for kept in past.kept:
        for place, token in enumerate(kept.tokens[:-1]):
            assert said[kept.ticket][place] == token
            compared += 1
    assert compared


def test_the_streams_have_everything_that_happens_to_a_request() -> None:
    seen: dict[str, int] = {}
    for seed in range(60):
        for key, count in Stream(seed).run(40).seen.items():
            seen[key] = seen.get(key, 0) + count
    assert min(seen[key] for key in [*FINISH_STATUS, "hits", "evictions"]) > 20
    assert not any(seen[key] for key in REUSE)
    for seed in range(60):
        for key, count in Stream(seed, reuse=True).run(40).seen.items():
            seen[key] = seen.get(key, 0) + count
    assert min(seen[key] for key in REUSE) > 10


def test_steps_that_made_nothing_still_held_are_not_run_again() -> None:
    stream = Stream(1).run(400)
    _, past = restored_planner(stream, len(stream.entries))
    assert len(past.again) < len(stream.plans) / 5


def test_without_a_lost_slab_nothing_runs_again() -> None:
    stream = Stream(1).run(40)
    assert restore(Past(stream.entries), stream.fleet, slab_lost=False).again == ()


def test_an_empty_record_restores_a_new_planner() -> None:
    stream = Stream(1)
    assert restore(Past([]), stream.fleet) == Restored(-1, (), (), (), (), ())


def test_a_record_without_a_tickets_request_is_refused() -> None:
    stream = Stream(1).run(40)
    cut = next(n for n, what, _ in stream.handed if what == "offer")
    with pytest.raises(JournalCorrupt, match="ticket 1: the record has no request for it"):
        restore(Past(stream.entries[cut + 1 :]), stream.fleet)


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, b"\x20\0\0\0\x60\0\0\0"])
def test_a_malformed_entry_is_named(damage: bytes) -> None:
    stream = Stream(1).run(10)
    with pytest.raises(JournalCorrupt, match="entry 0 of the history"):
        restore(Past([damage, *stream.entries[1:]]), stream.fleet)


# -- with the sequencer, in both orders -----------------------------------------------------------


class Watched(Planner):
    """A planner whose way in and out is noted."""

    log: ClassVar[list[tuple[Any, ...]]] = []

    def offer(self, request: Request) -> None:
        self.log.append(("offer", request))
        super().offer(request)

    def cancel(self, ticket: int, due: int) -> None:
        self.log.append(("cancel", ticket, due))
        super().cancel(ticket, due)

    def plan(self, step: int) -> StepPlan:
        plan = super().plan(step)
        self.log.append(("plan", plan))
        return plan

    def commit(self, outcomes: Any) -> Booked:
        self.log.append(("commit", dict(outcomes)))
        return super().commit(outcomes)


def simulated_request(asked: Asked) -> Request:
    """As the simulator's engine makes it."""
    return simulator.request_of(*asked[:3], decode_at(asked.record, 0)[0])


def told(entries: list[bytes], kind: Kind) -> Iterator[int]:
    """Ids of the records of a kind."""
    for entry in entries:
        for record in decode(entry):
            if record.kind == kind:
                yield record.id


@pytest.mark.parametrize("fleet_seed", range(40))
def test_a_run_cut_anywhere_goes_on_with_the_same_plans(
    fleet_seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watched, "log", log := [])
    monkeypatch.setattr(simulator, "Planner", Watched)
    run = simulator.simulate(fleet_seed, 1)
    fleet, _ = make_fleet(fleet_seed)
    limits = [limits_of(model) for model in fleet.models]
    # Behind the last report that was taken in, arrival order chose what no record has.
    last = max(told(list(run.entries), Kind.STEP), default=-1)
    stop = next(
        (n for n, (what, *a) in enumerate(log) if what == "plan" and a[0].step > last), None
    )
    for cut in range(0, len(run.entries), max(1, len(run.entries) // 12)):
        past = restore(Past(run.entries[:cut], run.kept), fleet, slab_lost=False)
        planner = Planner(limits, fleet.schedule.priority_steps)
        requests = {asked.ticket: simulated_request(asked) for asked in past.asked}
        Stepper(planner, 0).restore(past, requests)
        tickets = dict.fromkeys(told(list(run.entries[:cut]), Kind.TICKET))
        revoked = list(told(list(run.entries[:cut]), Kind.REVOKE))
        going_on(planner, log[:stop], tickets, revoked, past.last_step)


def going_on(
    planner: Planner,
    log: list[tuple[Any, ...]],
    tickets: dict[int, None],
    revoked: list[int],
    last_step: int,
) -> None:
    """Hand in what came behind the cut; every plan must be the noted one."""
    step = -1
    for what, *arguments in log:
        if what == "offer" and arguments[0].ticket not in tickets:
            planner.offer(arguments[0])
        elif what == "cancel":
            ticket, due = arguments
            if ticket in revoked:
                revoked.remove(ticket)
            else:
                planner.cancel(ticket, due)
        elif what == "plan":
            step = arguments[0].step
            if step > last_step:
                assert planner.plan(step) == arguments[0]
        elif what == "commit" and step > last_step:
            planner.commit(arguments[0])


# -- from the newest part of a record --------------------------------------------------------------


def known_of(entries: list[bytes]) -> Known:
    """What a supervisor knows: who waits for an answer, which slots were ever used."""
    used: dict[tuple[int, int], None] = {}
    ended: dict[int, None] = {}
    for entry in entries:
        if next(decode(entry)).kind == Kind.STEP:
            for op, model, slot, ticket, _, _ in rows_of(entry):
                if op in (FromEngine.ADMIT, FromEngine.MOVE):
                    used[model, slot] = None
                elif op == FromEngine.END:
                    ended[ticket] = None
    unanswered = tuple(t for t in told(entries, Kind.TICKET) if t not in ended)
    return Known(unanswered, tuple(used))


def from_parts(entries: list[bytes], fleet: Fleet) -> list[int]:
    """Restore from the newest parts of a record, all lengths: those that were enough."""
    whole = restore(Past(entries), fleet, slab_lost=False)
    known, lengths = known_of(entries), []
    for skipped in range(len(entries)):
        part = Past(entries[skipped:], (), skipped)
        try:
            restored = restore(part, fleet, slab_lost=False, known=known)
        except Earlier:
            continue
        assert restored == whole
        lengths.append(len(part.entries))
    return lengths


def test_a_part_of_the_record_that_is_enough_gives_the_same_state() -> None:
    shorter = 0
    for seed in range(16):
        stream = Stream(seed, reuse=seed % 2 > 0).run(60)
        for cut in range(10, len(stream.entries), 23):
            lengths = from_parts(stream.entries[:cut], stream.fleet)
            if lengths:  # One that is enough stays so however much longer it is.
                assert lengths == [*range(cut, lengths[-1] - 1, -1)]
                shorter += lengths[-1] < cut - 5
    assert shorter > 10


@pytest.mark.parametrize("fleet_seed", range(0, 40, 2))
def test_a_part_of_a_simulated_run_gives_the_same_state_or_is_too_short(fleet_seed: int) -> None:
    run = simulator.simulate(fleet_seed, 1)
    fleet, _ = make_fleet(fleet_seed)
    for cut in range(1, len(run.entries), max(1, len(run.entries) // 5)):
        entries = list(run.entries[:cut])
        if fleet.schedule.order == "strict":
            from_parts(entries, fleet)
        else:
            with pytest.raises(Earlier, match="the whole record is needed"):
                restore(Past(entries, (), 1), fleet, slab_lost=False, known=known_of(entries))


def test_what_must_be_computed_again_needs_the_whole_record() -> None:
    stream = Stream(1).run(40)
    part = Past(stream.entries, (), 0)
    with pytest.raises(Earlier, match="the whole record is needed"):
        restore(part, stream.fleet, known=known_of(stream.entries))
    with pytest.raises(Earlier, match="the whole record is needed"):
        restore(part, stream.fleet, slab_lost=False)


def test_a_slot_or_a_ticket_that_a_part_does_not_show_makes_it_too_short() -> None:
    stream = Stream(1).run(60)
    part, known = Past(stream.entries, (), 0), known_of(stream.entries)
    assert restore(part, stream.fleet, slab_lost=False, known=known)
    for more in (
        known._replace(used=(*known.used, (0, 99))),
        known._replace(unanswered=(*known.unanswered, 1 << 20)),
    ):
        with pytest.raises(Earlier, match="1 slots and requests, or cancels, lie before"):
            restore(part, stream.fleet, slab_lost=False, known=more)
