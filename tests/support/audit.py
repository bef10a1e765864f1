"""Audit of a simulated history: a second, simpler book-keeper that knows what it must never say.

Here: tags, tickets and items. What is in mailboxes, and what goes on in steps, has books of its own
(auditmail.py, auditsteps.py).
"""

import struct
from collections.abc import Iterator

from auditmail import MailAudit
from auditsteps import StepAudit
from fleetmaker import make_fleet
from simulator import Run

from lockstep.engine.fleet import Fleet
from lockstep.engine.history import TICKET_PAYLOAD
from lockstep.engine.outside import What
from lockstep.engine.record import Kind, Record, decode
from lockstep.engine.strict_json import loads
from lockstep.engine.wire import FromEngine

SLOT = struct.Struct("<HHIQqq")  # RESULT_SLOT of engine/wire.py.


def difference(run: Run, other: Run) -> str:
    """Where two histories part."""
    for number, (a, b) in enumerate(zip(run.entries, other.entries, strict=False)):
        if a != b:
            return f"entry {number}: {list(decode(a))} in place of {list(decode(b))}"
    return f"{len(run.entries)} entries in place of {len(other.entries)}"


def records(run: Run) -> Iterator[Record]:
    for entry in run.entries:
        yield from decode(entry)


def slots(step: Record) -> list[tuple[int, ...]]:
    """The slots of a STEP record, STEP excluded."""
    found = []
    for slot in SLOT.iter_unpack(step.payload[: len(step.payload) // 32 * 32]):
        if slot[0] == FromEngine.STEP:
            return found
        found.append(slot)
    raise AssertionError("a STEP record without a STEP slot")


class Audit:
    """Reads one history."""

    def __init__(self, seed: int, run: Run) -> None:
        self.fleet: Fleet
        self.fleet, self.items = make_fleet(seed)
        self.ids = [item.id for item in self.items]
        self.arrived = 0
        self.run = run
        self.arrival = self.fleet.schedule.order == "arrival"
        self.tag = (-1, 0)
        self.step = -1
        self.mail = MailAudit(self.fleet)
        self.steps = StepAudit(self.fleet)
        self.turns: dict[int, int] = {}  # Agent -> its turn that is not over.
        self.tickets = 0
        self.admitted = 0
        self.in_flight: dict[int, None] = {}
        self.outcomes: dict[int, bool] = {}  # Item -> whether it failed.

    def check(self) -> None:
        for entry in self.run.entries:
            first, *rest = decode(entry)
            if first.kind == Kind.STEP:
                self.one_step(first)
                assert not rest
            else:
                self.one_tag(first, rest)
        self.whole_run()

    def one_tag(self, head: Record, rest: list[Record]) -> None:
        assert head.kind == Kind.TAG
        tag = (head.id, head.peer)
        assert self.tag < tag, "tags rise"
        assert self.step < tag[0], "a step is hashed after all tags up to it"
        self.tag = tag
        self.mail.tag(tag, rest)
        tickets: dict[int, list[int]] = {}  # Agent -> its tickets of this tag.
        for record in rest:
            match record.kind:
                case Kind.TURN:
                    assert record.peer not in self.turns, "one turn at a time"
                    self.turns[record.peer] = record.id
                case Kind.EFFECT:
                    assert self.turns.pop(record.peer) == record.id
                case Kind.TICKET:
                    self.one_ticket(record)
                    tickets.setdefault(record.peer, []).append(record.id)
                case Kind.ADMIT:
                    assert record.item > self.admitted, "in input order"
                    skipped = range(self.admitted + 1, record.item)
                    assert all(item in self.outcomes for item in skipped)
                    self.admitted = record.item
                    self.in_flight[record.item] = None
                    bound = self.fleet.schedule.items_in_flight_max
                    assert len(self.in_flight) <= bound
                case Kind.OUTSIDE:
                    assert record.id == self.arrived + 1, "in the order of arrival"
                    self.arrived = record.id
                    assert (record.item, record.peer) == tag, "at its tag"
                    if record.flags == What.ITEM:
                        self.ids.append(len(self.ids) + 1)
                case Kind.OUTCOME:
                    self.one_outcome(record)
        self.dealt_in_turn(tickets)

    def one_ticket(self, record: Record) -> None:
        due, _, request = TICKET_PAYLOAD.unpack(record.payload)
        self.tickets += 1
        assert record.id == self.tickets, "tickets are numbered in tag order"
        if self.arrival:
            assert due == 0, "the engine says it, in the step"
        else:
            assert due == self.tag[0] + self.fleet.schedule.lookahead
        asked = self.mail.asked.pop((record.peer, request))
        self.steps.ticket(record.id, record.peer, due, asked)

    def dealt_in_turn(self, tickets: dict[int, list[int]]) -> None:
        # Place n of every agent comes before place n + 1 of any.
        places = sorted((t, place) for own in tickets.values() for place, t in enumerate(own))
        assert [place for _, place in places] == sorted(place for _, place in places)

    def one_outcome(self, record: Record) -> None:
        failed = record.flags == 1
        if record.item in self.in_flight:
            del self.in_flight[record.item]
        else:
            # A second sink of the same item, or one that never entered.
            assert record.item not in self.outcomes or not (failed or self.outcomes[record.item])
        self.outcomes[record.item] = failed

    def one_step(self, step: Record) -> None:
        rows = slots(step)
        self.steps.step(step.id, rows)
        answers = decode(step.payload[(len(rows) + 1) * SLOT.size :])
        ended = [row[3] for row in rows if row[0] == FromEngine.END]
        self.mail.step(step.id, zip(ended, answers, strict=True))
        self.step = step.id

    def whole_run(self) -> None:
        assert sorted(self.outcomes) == list(range(1, len(self.ids) + 1))
        assert not self.in_flight
        # One line or more for each item (several sinks), in the order of the input.
        lines = [loads(line) for line in self.run.outputs]
        order = list(dict.fromkeys(line["id"] for line in lines))
        assert order == self.ids
        for line in lines:
            number = order.index(line["id"]) + 1
            assert ("error" in line) == self.outcomes[number]
        assert self.run.tickets == self.tickets
        if self.run.state == "finished":
            assert sorted(self.steps.ended) == sorted(self.steps.due), "every ticket ended"
            assert not self.steps.rows
            self.mail.finished()
