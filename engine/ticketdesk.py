"""The ticket desk: requests to models at the current tag, and their answers.

The book gives the numbers; here they are dealt among those who ask at the same tag, cancelled, and
brought together with mailboxes and history.
"""

from collections.abc import Sequence
from typing import Protocol

from lockstep.engine import actions
from lockstep.engine.history import TICKET_PAYLOAD, TagEntry
from lockstep.engine.itemdesk import ItemDesk
from lockstep.engine.mailbox import EventClass
from lockstep.engine.order import Order
from lockstep.engine.post import Applying
from lockstep.engine.record import Kind, Record, encode, encode_record
from lockstep.engine.requests import RequestBook, Ticket
from lockstep.engine.roster import Roster
from lockstep.engine.wire import Answer


class Surroundings(Protocol):
    """The world around the desk."""

    roster: Roster
    entry: TagEntry
    actions: list[actions.Action]
    desk: ItemDesk


class TicketDesk:
    """One writer: the world, at the tag that is being processed.

    Args:
        world: Around it.
        order: Says when a ticket or a cancel is due.
        dues_known: Whether at this tag, already. In arrival order the engine says it (rule 11),
            and history has it in the step.

    Attributes:
        book: Every ticket and whether it is answered.
    """

    def __init__(self, world: Surroundings, order: Order, dues_known: bool) -> None:
        self._world = world
        self._order = order
        self._dues_known = dues_known
        self.book = RequestBook(len(world.roster))

    def deal(self, asking: list[Applying]) -> None:
        """Every INFER of these turns takes effect, then the cancels that came behind them."""
        # One per agent in turn, so that an agent with many requests does not push back the rest.
        for place in range(max(len(turn.infers) for turn in asking)):
            for turn in asking:
                if place < len(turn.infers):
                    self._issue(turn.agent, turn.infers[place])
        for turn in asking:
            for request in turn.late_cancels:
                self.cancel(turn.agent, request)
            turn.infers, turn.late_cancels = [], []

    def answered(self, answers: Sequence[Answer]) -> None:
        """Answers of the step before become deliverable."""
        roster = self._world.roster
        for answer in answers:
            ticket = self.book.answer(answer.ticket)
            if roster[ticket.agent].alive:
                roster.put(ticket.agent, EventClass.COMPLETION, ticket.number, answer.record)
            else:
                self.book.deliver(ticket.number)  # Nobody waits for it any more.

    def cancel(self, agent: int, request: int) -> None:
        """An agent's request is cancelled."""
        ticket = self.book.open(agent).get(request)
        if ticket is not None and self.book.unanswered(ticket):
            self.revoke(ticket)  # Else the answer was on its way already: it stands.

    def cancel_item(self, item: int) -> None:
        """Every request for an item is cancelled."""
        for ticket in self.book.of_item(item):
            self.revoke(ticket)

    def end(self, agent: int) -> None:
        """An agent has ended: nobody waits for what it has asked."""
        for request in list(self.book.open(agent)):
            self.cancel(agent, request)

    def revoke(self, ticket: Ticket) -> None:
        """A ticket that is not answered is cancelled."""
        due = self._order.cancel(ticket.number, self._world.roster.tag[0])
        payload = (due if self._dues_known else 0).to_bytes(8, "little")
        self._world.entry.add(encode(Kind.REVOKE, payload, id=ticket.number))
        self._world.actions.append(actions.Revoke(ticket.number, due))

    def _issue(self, agent: int, record: Record) -> None:
        world = self._world
        due = self._order.due(self.book.issued + 1, world.roster.tag[0])
        ticket = self.book.issue(agent, record.id, record.item, due)
        shown = due if self._dues_known else 0
        payload = TICKET_PAYLOAD.pack(shown, ticket.ordinal, ticket.request)
        number, item = ticket.number, ticket.item
        world.entry.add(encode(Kind.TICKET, payload, id=number, item=item, peer=agent))
        world.actions.append(actions.Issue(ticket, encode_record(record)))
        if item and world.desk.book.cancelled(item):
            self.revoke(ticket)
