"""The item desk: items at the current tag, between the input, the schedule and the output.

The schedule says who gets an item next; the book knows which items are in flight; here both are
brought together with mailboxes and history.
"""

from collections.abc import Sequence
from typing import Protocol

from lockstep.engine.fleet import Fleet
from lockstep.engine.history import TagEntry
from lockstep.engine.items import InputItem, ItemBook, item_of_line
from lockstep.engine.mailbox import Event, EventClass
from lockstep.engine.record import FLAG_ERROR, ITEM_NONE, Kind, Record, encode
from lockstep.engine.roster import Roster
from lockstep.engine.schedule import make


class Surroundings(Protocol):
    """The world around the desk."""

    roster: Roster
    entry: TagEntry

    def has_open(self, agent: int, item: int) -> bool:
        """Whether the agent waits for a request, timer or tool call of the item."""

    def cancel_work(self, item: int) -> None:
        """Cancel every request and tool call of an item."""


class ItemDesk:
    """Admission, hand-over, outcome. The host of the schedule (engine/schedule/base.py).

    Attributes:
        book: Which items there are.
        schedule: Who gets one next.
    """

    def __init__(self, fleet: Fleet, inputs: Sequence[InputItem], world: Surroundings) -> None:
        schedule = fleet.schedule
        self._world = world
        self._roster = world.roster
        self.book = ItemBook(
            inputs,
            self._roster.names,
            schedule.items_in_flight_max,
            schedule.items_reordered_max,
        )
        streams = any(not source.to for source in fleet.sources)
        self.schedule = make(fleet, self, bool(inputs) or streams)
        self._given: dict[int, dict[int, None]] = {}  # Unfinished item -> agents woken with it.

    # -- what the world tells -----------------------------------------------------------------

    def admit(self) -> list[int]:
        """Let items in until enough are in flight; their numbers."""
        admitted = []
        while self.book.may_admit():
            item, payload = self.book.admit()
            self._world.entry.add(encode(Kind.ADMIT, item=item))
            self._given[item] = {}
            self.schedule.admit(item, payload)
            admitted.append(item)
        return admitted

    def came(self, line: bytes, call: bool = False) -> None:
        """A line of an outside source is the next item; ``call``: of the agent that takes calls."""
        number = len(self.book) + 1
        self.book.append(item_of_line(line, number))
        if call:
            self.schedule.called(number)

    def emitted(self, agent: int, record: Record) -> None:
        """An EMIT takes effect; for an item that is finished or failed it is void.

        So is one that was legal when its turn was checked and is not any more: another agent's
        effect of the same tag came first, or the turn waited for room meanwhile (rule 9).
        """
        if not self.book.unfinished(record.item):
            return
        given_up = bool(record.flags & FLAG_ERROR)
        if self.schedule.may_emit(agent, record.item, record.peer, given_up):
            return
        if given_up:
            name = self._roster.names[agent]
            reason = record.payload.decode("utf-8", "replace")
            self.schedule.gave_up(agent, record.item, f"agent {name} gave it up: {reason}")
        else:
            self.schedule.emitted(agent, record.item, record.payload, record.peer)

    def done(self, agent: int, item: int) -> None:
        """A DONE for an item takes effect, unless the go was over meanwhile."""
        if self.book.unfinished(item) and not self.schedule.may_finish(agent, item):
            self.schedule.done(agent, item)

    def delivered(self, agent: int, item: int) -> None:
        """The agent is woken with the item."""
        if self.book.unfinished(item):
            self._given[item][agent] = None
            self.schedule.delivered(agent, item)

    def ended(self, agent: int, reason: str) -> None:
        """The agent has ended: what it held is given to another replica, or fails."""
        for item in self.book.in_flight():
            if not self.book.unfinished(item) or agent not in self.schedule.holders(item):
                continue
            if not self.schedule.member_ended(agent, item):
                self.fail_item(item, reason)

    def cancel(self, item: int, why: str) -> None:
        """Cancel an item for everybody, at this tag (rule 12)."""
        book = self.book
        if not 1 <= item <= len(book) or not book.open(item):
            return  # Finished or failed in time: that stands.
        holders: list[int] = []
        if book.unfinished(item):
            self._world.cancel_work(item)
            given = self._given[item]
            holders = [agent for agent in self.schedule.holders(item) if agent in given]
            self._drop(item)
        self._fail(item, why)
        book.mark_cancelled(item)
        record = encode(Kind.CANCELLED, why.encode(), item=item)
        for agent in sorted(holders):
            if self._roster[agent].alive:
                self._roster.put(agent, EventClass.ITEM, item, record)

    def stop(self, reason: str) -> None:
        """Give up every item that is not finished."""
        for item in range(1, len(self.book) + 1):
            if self.book.unfinished(item):
                names = [self._roster.names[a] for a in self.schedule.holders(item)]
                self._fail(item, f"{reason}; it was held by {', '.join(names) or 'nobody'}")
            elif self.book.open(item):
                self._fail(item, f"{reason}; the item never entered")

    # -- what the schedule asks for -----------------------------------------------------------

    def deliver_item(self, agent: int, item: int, payload: bytes, peer: int, turn: int) -> None:
        """Give an item to an agent (engine/schedule/base.py)."""
        if not self.book.unfinished(item):
            return
        if not self._roster[agent].alive:
            name = self._roster.names[agent]
            self.fail_item(item, f"agent {name} has ended before it got the item")
            return
        record = encode(Kind.ITEM, payload, id=turn, item=item, peer=peer)
        self._roster.put(agent, EventClass.ITEM, item, record, Kind.ITEM, item, peer)

    def finish_item(self, item: int, outputs: Sequence[tuple[int, bytes]]) -> None:
        """The item is done."""
        self._leave(item)
        self.book.finish(item, self._roster.tag, outputs)
        for agent, payload in outputs:
            self._world.entry.add(encode(Kind.OUTCOME, payload, item=item, peer=agent))
            self._world.entry.output(agent, item, payload)

    def fail_item(self, item: int, reason: str) -> None:
        """The item is given up."""
        if self.book.unfinished(item):
            self._fail(item, reason)

    def has_open(self, agent: int, item: int) -> bool:
        """Whether the agent waits for a request, timer or tool call of the item."""
        return self._world.has_open(agent, item)

    def is_alive(self, agent: int) -> bool:
        """Whether the agent has not ended."""
        return self._roster[agent].alive

    # -- parts --------------------------------------------------------------------------------

    def _fail(self, item: int, reason: str) -> None:
        if self.book.unfinished(item):
            self._leave(item)
        self.book.fail(item, reason)
        self._world.entry.add(encode(Kind.OUTCOME, reason.encode(), flags=1, item=item))

    def _leave(self, item: int) -> None:
        self.schedule.forget(item)
        self._given.pop(item, None)

    def _drop(self, item: int) -> None:
        """Take the item out of the mailboxes in which it still lies."""

        def is_item(event: Event) -> bool:
            return event.kind == Kind.ITEM and event.item == item != ITEM_NONE

        for agent in self._roster.agents:
            agent.mailbox.drop(is_item)
