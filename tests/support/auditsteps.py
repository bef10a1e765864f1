"""Audit of steps: which rows a model may have, and who must get on in each of its steps.

Why no ticket starves (rule 1). Tickets are admitted in the order of (due + priority x
`priority_steps`, ticket), so that none that is due later than 7 x `priority_steps` steps behind
another comes before it; no slot is left free while one waits. In each step of its model every row
whose prompt is whole gets a token, and the first of the others a chunk of its prompt; no step is
left out. So a ticket that is due is answered after at most as many steps of its model as those
before it, and itself, have tokens in their prompts and may generate.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from simulator import request_of

from lockstep.engine.fleet import Fleet
from lockstep.engine.plan import FINISH_STATUS, Request
from lockstep.engine.planner import DUE
from lockstep.engine.prefix import COPY_TOKENS_MIN
from lockstep.engine.record import Record
from lockstep.engine.wire import FromEngine

AT_BOUNDARY = [FINISH_STATUS[why] for why in ("refused", "cancelled", "timeout")]
Place = tuple[int, int]  # (model, slot)
Slot = tuple[int, ...]


@dataclass
class Row:
    """One active row."""

    ticket: int
    number: int  # Order of admission.
    fresh: bool  # No chunk yet and no hit.
    whole: bool = False  # Its prompt: it has its first token.


class StepAudit:
    """Reads tickets and steps in the order of the history.

    Attributes:
        due: Ticket -> due step.
        ended: Tickets, in the order of their ends.
        rows: By place.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._arrival = fleet.schedule.order == "arrival"
        self._last = -1
        self._open: dict[int, Request] = {}  # Tickets that have not ended.
        self._samples: Counter[int] = Counter()  # Ticket -> those that got a slot.
        self._taken: dict[int, None] = {}  # In arrival order: tickets whose due is known.
        self._rows_ever = 0
        self.due: dict[int, int] = {}
        self.ended: list[int] = []
        self.rows: dict[Place, Row] = {}

    def ticket(self, number: int, agent: int, due: int, asked: Record) -> None:
        """A ticket was given."""
        self.due[number] = due
        self._open[number] = request_of(number, agent, due, asked)

    def step(self, step: int, slots: list[Slot]) -> None:
        """A step was executed."""
        for _, what, _, ticket, due, _ in _of(slots, FromEngine.TAKEN):
            assert self._arrival
            if what == DUE:
                assert ticket not in self._taken and due <= step
                self.due[ticket] = due
                self._taken[ticket] = None
        self._no_step_was_left_out(step)
        self._last = step
        ends = {end[3]: end[4] in AT_BOUNDARY for end in _of(slots, FromEngine.END)}
        assert len(ends) == len(_of(slots, FromEngine.END)), "answered once"
        for ticket, before in ends.items():
            if before:
                self._end(ticket, step)
        waiting = self._waiting(step)
        for slot in slots:
            self._planned(step, slot)
        self._chunks_fit(slots)
        for model, one in enumerate(self._fleet.models):
            if step % one.period == 0:
                self._admitted_in_order(model, slots, waiting)
                self._get_on(model, slots, ends)
        for _, model, number, ticket, _, _ in _of(slots, FromEngine.TOKEN):
            assert self.rows[model, number].ticket == ticket
            self.rows[model, number].whole = True
        for _, model, number, ticket, _, _ in _of(slots, FromEngine.LEAVE):
            assert self.rows.pop((model, number)).ticket == ticket
        for ticket, before in ends.items():
            if not before:
                self._end(ticket, step)

    def _no_step_was_left_out(self, step: int) -> None:
        """Nor did any run that nobody asked for."""
        assert step > self._last
        joined = [n for n in self._open if self._joined(n, self._last)]
        if joined or self.rows:
            assert step == self._last + 1, "no step is left out while somebody waits"
        elif not self._arrival:
            first = min(self.due[ticket] for ticket in self._open)
            assert step == max(first, self._last + 1), "an idle engine jumps to the first due"

    def _joined(self, ticket: int, step: int) -> bool:
        """Whether a ticket is in its queue, or out of it again, in front of a step."""
        known = not self._arrival or ticket in self._taken
        return known and self.due[ticket] <= step

    def _waiting(self, step: int) -> list[tuple[int, int, int, int]]:
        """(place, ticket, sample, model) of those that wait for a slot, in the order of rule 1."""
        found = []
        for ticket, request in self._open.items():
            if self._joined(ticket, step):
                steps = request.priority * self._fleet.schedule.priority_steps
                place = self.due[ticket] + steps
                for sample in range(self._samples[ticket], request.samples):
                    found.append((place, ticket, sample, request.model))
        return sorted(found)

    def _admitted_in_order(
        self, model: int, slots: list[Slot], waiting: list[tuple[int, int, int, int]]
    ) -> None:
        mine = [(ticket, sample) for _, ticket, sample, of in waiting if of == model]
        got = [(s[3], s[5]) for s in _of(slots, FromEngine.ADMIT) if s[1] == model]
        assert got == mine[: len(got)], "admitted strictly in the order of the queue"
        rows = sum(place[0] == model for place in self.rows)
        assert len(got) == len(mine) or rows == self._fleet.models[model].rows_max, (
            "no slot is free while one waits"
        )

    def _get_on(self, model: int, slots: list[Slot], ends: Mapping[int, bool]) -> None:
        places = [place for place in self.rows if place[0] == model]
        places.sort(key=lambda place: self.rows[place].number)
        tokens = [(s[1], s[2]) for s in _of(slots, FromEngine.TOKEN)]
        chunks = [(s[1], s[2]) for s in _of(slots, FromEngine.CHUNK)]
        for place in places:
            row = self.rows[place]
            decodes = place in tokens or row.ticket in ends  # Its output may be invalid.
            assert decodes or not row.whole, "each row decodes in each step"
        first = next((place for place in places if not self.rows[place].whole), None)
        assert first is None or first in chunks, "the first that lacks some prompt gets on"

    def _planned(self, step: int, slot_of_step: Slot) -> None:
        """One thing that was decided before a model ran."""
        op, model, slot, ticket, a, b = slot_of_step
        place = (model, slot)
        if op not in (FromEngine.TAKEN, FromEngine.END):
            one = self._fleet.models[model]
            assert step % one.period == 0
            rests = op in (FromEngine.EVICT, FromEngine.MOVE)
            assert slot < one.rows_max + rests * one.rows_kept
        match op:
            case FromEngine.EVICT:
                assert place not in self.rows
            case FromEngine.ADMIT:
                assert self.due[ticket] <= step
                assert place not in self.rows, "a slot has one row"
                assert b == self._samples[ticket], "samples are admitted in order"
                self._samples[ticket] += 1
                self._rows_ever += 1
                self.rows[place] = Row(ticket, self._rows_ever, a == 0)
            case FromEngine.COPY:
                assert self._fleet.models[model].prefix_copies and b >= COPY_TOKENS_MIN
                if place in self.rows:  # Else it is admitted behind its copies.
                    self.rows[place].fresh = False
            case FromEngine.MOVE:
                assert place not in self.rows, "no row is in the way"
                if (row := self.rows.pop((model, ticket), None)) is not None:
                    self.rows[place] = row
            case FromEngine.CHUNK:
                row = self.rows[place]
                assert row.ticket == ticket
                assert b > 1 or row.fresh, "no chunk of one token but the first"
                row.fresh = False

    def _chunks_fit(self, slots: list[Slot]) -> None:
        spent: Counter[int] = Counter()
        for chunk in _of(slots, FromEngine.CHUNK):
            spent[chunk[1]] += chunk[5]
        for model, tokens in spent.items():
            assert tokens <= self._fleet.models[model].prefill_tokens_per_step

    def _end(self, ticket: int, step: int) -> None:
        assert ticket in self._open, "answered once"
        assert self.due[ticket] <= step
        del self._open[ticket]
        self.ended.append(ticket)
        self.rows = {place: row for place, row in self.rows.items() if row.ticket != ticket}


def _of(slots: list[Slot], op: FromEngine) -> list[Slot]:
    return [slot for slot in slots if slot[0] == op]
