"""Tokens of answers that are told while they grow: calls whose client reads a stream.

What is told was recorded: tokens are taken from the entries of steps, as they are appended. The
token that ends an answer is not among them; the answer says what is left.
"""

from typing import NamedTuple

from lockstep.engine.history import Entry
from lockstep.engine.record import Kind, decode_at
from lockstep.engine.requests import Ticket
from lockstep.engine.step_slots import split
from lockstep.engine.wire import FromEngine


class Told(NamedTuple):
    """Some tokens of an item's answer.

    Attributes:
        item: Its number.
        at: How many came before them.
        ids: Of the tokens.
    """

    item: int
    at: int
    ids: list[int]


class Tokens:
    """Of the items that are followed; each of them asks for one answer of one sample.

    Attributes:
        waiting: What is to be told once it is promised.
    """

    def __init__(self) -> None:
        self._items: dict[int, None] = {}
        self._tickets: dict[int, tuple[int, int]] = {}  # Item, and how many tokens it has.
        self.waiting: list[Told] = []

    @property
    def followed(self) -> bool:
        """Whether anybody listens."""
        return bool(self._items)

    def follow(self, item: int) -> None:
        """Tell the tokens of an item, from the first on."""
        self._items[item] = None

    def issued(self, ticket: Ticket) -> None:
        """A request got its ticket."""
        if ticket.item in self._items:
            self._tickets[ticket.number] = ticket.item, 0

    def appended(self, entry: Entry) -> None:
        """An entry of history."""
        if not self._tickets:
            return
        record, _ = decode_at(entry.body, 0)
        if record.kind != Kind.STEP:
            return
        slots, _ = split(record.payload)
        ended = [slot.ticket for slot in slots if slot.op == FromEngine.END]
        for ticket in ended:
            self._tickets.pop(ticket, None)
        for slot in slots:
            if slot.op == FromEngine.TOKEN and slot.ticket in self._tickets:
                item, at = self._tickets[slot.ticket]
                self._tickets[slot.ticket] = item, at + 1
                self.waiting.append(Told(item, at, [slot.values["token"]]))

    def closed(self, item: int) -> None:
        """The item has come to its end."""
        self._items.pop(item, None)

    def take(self) -> list[Told]:
        """What waits."""
        told, self.waiting = self.waiting, []
        return told
