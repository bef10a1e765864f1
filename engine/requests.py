"""Tickets: numbered in tag order, each answered exactly once, each agent's waits known."""

import heapq
from dataclasses import dataclass

from lockstep.engine.errors import LockstepBug


@dataclass(frozen=True, slots=True)
class Ticket:
    """One place in line.

    Attributes:
        number: From 1, in tag order; never reused.
        due: Step at which it joins its model's queue.
        agent: Whose it is.
        request: The guest's own number for it; free again once the answer was delivered.
        item: The item it belongs to, 0 for none.
        ordinal: Which request of the agent it is, from 0: the sampling key (rule 14).
    """

    number: int
    due: int
    agent: int
    request: int
    item: int
    ordinal: int


class RequestBook:
    """Every ticket from its number to its delivery."""

    def __init__(self, agents: int) -> None:
        self.issued = 0
        self._ordinals = [0] * agents
        self._unanswered: dict[int, Ticket] = {}
        self._undelivered: dict[int, Ticket] = {}
        self._dues: list[tuple[int, int]] = []  # Heap of (due, ticket); answered ones linger.
        self._open: list[dict[int, Ticket]] = [{} for _ in range(agents)]  # By request number.

    def issue(self, agent: int, request: int, item: int, due: int) -> Ticket:
        """Give the next ticket."""
        self.issued += 1
        ticket = Ticket(self.issued, due, agent, request, item, self._ordinals[agent])
        self._ordinals[agent] += 1
        self._unanswered[ticket.number] = self._undelivered[ticket.number] = ticket
        heapq.heappush(self._dues, (due, ticket.number))
        self._open[agent][request] = ticket
        return ticket

    def answer(self, number: int) -> Ticket:
        """The engine answered a ticket.

        Raises:
            LockstepBug: it is unknown or was answered before.
        """
        ticket = self.find(number)
        del self._unanswered[number]
        return ticket

    def find(self, number: int) -> Ticket:
        """An unanswered ticket by its number.

        Raises:
            LockstepBug: it is unknown or was answered before.
        """
        ticket = self._unanswered.get(number)
        if ticket is None:
            raise LockstepBug(f"ticket {number} was answered twice or never given")
        return ticket

    def unanswered_ticket(self, number: int) -> Ticket | None:
        """A ticket the engine still owes the answer to, None for any other number."""
        return self._unanswered.get(number)

    def of_item(self, item: int) -> list[Ticket]:
        """Unanswered tickets of an item, by number."""
        return [ticket for ticket in self._unanswered.values() if ticket.item == item]

    def deliver(self, number: int) -> None:
        """The answer reaches its guest now; its request number is free again."""
        ticket = self._undelivered.pop(number)
        del self._open[ticket.agent][ticket.request]

    def smallest_due(self) -> int | None:
        """Smallest due step of an unanswered ticket; None when every ticket is answered."""
        while self._dues and self._dues[0][1] not in self._unanswered:
            heapq.heappop(self._dues)
        return self._dues[0][0] if self._dues else None

    def open(self, agent: int) -> dict[int, Ticket]:
        """Requests whose answer the agent has not seen, by request number."""
        return self._open[agent]

    def open_count(self) -> int:
        """Tickets that the engine still owes an answer to."""
        return len(self._unanswered)

    def unanswered(self, ticket: Ticket) -> bool:
        """Whether the engine still owes the answer."""
        return ticket.number in self._unanswered
