"""The agenda: every tag at which something waits, by where it came from.

Three kinds, because they count differently at the end of a run: what the run made itself,
deadlines of items (void once the item is over), and outside events (which a second execution has
from the start, so that nothing may depend on their being here already).
"""

import heapq
from collections.abc import Callable

from lockstep.engine.effects import Turn
from lockstep.engine.mailbox import Event
from lockstep.engine.outside import Outside
from lockstep.engine.tag import Tag
from lockstep.engine.wire import Answer


class Pending:
    """What waits for one tag.

    Attributes:
        turns: That take effect, by agent.
        answers: Of the step before.
        timers: That fire, with whose they are.
        outside: Events from outside.
        overdue: Items whose deadline it is.
        retry: Parked senders may find room.
        forced: The first of them is accepted over the bound.
        admit: Items may enter.
        close: CLOSE goes to everybody.
    """

    __slots__ = (
        *("admit", "answers", "close", "forced", "outside", "overdue", "retry", "timers", "turns"),
    )

    def __init__(self) -> None:
        self.turns: dict[int, Turn] = {}
        self.answers: list[Answer] = []
        self.timers: list[tuple[int, Event]] = []
        self.outside: list[Outside] = []
        self.overdue: list[int] = []
        self.retry = self.forced = self.admit = self.close = False


class Agenda:
    """Pending tags. ``item_open`` says whether an item's deadline still counts."""

    def __init__(self, item_open: Callable[[int], bool]) -> None:
        self._item_open = item_open
        self._heap: list[Tag] = []
        self._pending: dict[Tag, Pending] = {}
        self._outside: list[tuple[Tag, int, Outside]] = []
        self._deadlines: list[tuple[Tag, int]] = []

    def at(self, tag: Tag) -> Pending:
        """What the run itself has waiting at a tag, to add to."""
        pending = self._pending.get(tag)
        if pending is None:
            pending = self._pending[tag] = Pending()
            heapq.heappush(self._heap, tag)
        return pending

    def add_outside(self, event: Outside) -> None:
        """An outside event has its tag."""
        heapq.heappush(self._outside, (event.tag, event.number, event))

    def add_deadline(self, tag: Tag, item: int) -> None:
        """The item must be over before this tag."""
        heapq.heappush(self._deadlines, (tag, item))

    def first(self) -> Tag | None:
        """The smallest pending tag."""
        if not self._outside and not self._deadlines:  # Nearly always.
            return self._heap[0] if self._heap else None
        tags = [self._heap[0]] if self._heap else []
        if self._deadline():
            tags.append(self._deadlines[0][0])
        if self._outside:
            tags.append(self._outside[0][0])
        return min(tags, default=None)

    def only_outside(self) -> bool:
        """Whether nothing is pending but outside events."""
        return not self._heap and not (self._deadlines and self._deadline())

    def free(self, tag: Tag) -> bool:
        """Whether nothing is pending at a tag."""
        if tag in self._pending or any(tag == other for other, _, _ in self._outside):
            return False
        return not any(tag == other for other, _ in self._deadlines)

    def take(self, tag: Tag) -> Pending:
        """Everything at the smallest pending tag; it is not pending any more."""
        if self._heap and self._heap[0] == tag:
            heapq.heappop(self._heap)
        pending = self._pending.pop(tag, None) or Pending()
        while self._outside and self._outside[0][0] == tag:
            pending.outside.append(heapq.heappop(self._outside)[2])
        while self._deadline() and self._deadlines[0][0] == tag:
            pending.overdue.append(heapq.heappop(self._deadlines)[1])
        return pending

    def _deadline(self) -> bool:
        while self._deadlines and not self._item_open(self._deadlines[0][1]):
            heapq.heappop(self._deadlines)
        return bool(self._deadlines)
