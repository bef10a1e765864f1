"""Mailboxes: events that wait for an agent, in the one order in which it will see them (rule 2)."""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from lockstep.engine.tag import Tag


class EventClass(IntEnum):
    """Order of events that became deliverable at one tag."""

    START = 0
    COMPLETION = 1
    MESSAGE = 2
    UNDELIVERED = 3
    ITEM = 4
    TIMER = 5
    OUTSIDE = 6
    CLOSE = 7


_MESSAGE = int(EventClass.MESSAGE)


class Event(NamedTuple):
    """One event, or several messages of one sender. Sorted by its first fields; no two of a
    mailbox share them.

    ``key`` is, by class: ticket; order of application; item number; order of setting; arrival
    number. ``order`` settles what is left (a join's predecessors of one item).
    """

    deliverable: Tag
    event_class: int
    key: int
    order: int
    kind: int
    item: int
    peer: int
    record: bytes
    count: int = 1  # type: ignore[assignment]


class Mailbox:
    """One agent's events. Taken all at once when the agent is woken.

    Attributes:
        messages: Messages among them: the only class that is bounded (rule 9).
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self.messages = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Keep an event."""
        self._events.append(event)
        if event.event_class == _MESSAGE:
            self.messages += event.count

    def take(self) -> list[Event]:
        """Everything, in order; the mailbox is empty then."""
        events = self._events
        if len(events) > 1:
            events.sort()
        self._events = []
        self.messages = 0
        return events

    def drop(self, unwanted: Callable[[Event], bool]) -> None:
        """Give up events that are not wanted any more. Messages are never among them."""
        self._events = [event for event in self._events if not unwanted(event)]
