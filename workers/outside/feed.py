"""A feed: what one source brings through the gate, and how much of it nobody has taken yet."""

from collections.abc import Sequence
from typing import Protocol

from lockstep.engine.fleet import Source
from lockstep.engine.outside import What
from lockstep.workers.outside.gate import Gate, Told
from lockstep.workers.outside.ids import ItemIds

WAITING_MAX = 256  # Events of a source that wait to be taken; then it is read no more.


class Admission(Protocol):
    """How many items have entered (`engine.items.ItemBook`)."""

    admitted: int


class Feed:
    """What a source brings, and how much of it waits. One for each source.

    Attributes:
        brought: Events so far.
        closed: No more will come.
    """

    def __init__(
        self,
        index: int,
        source: Source,
        agents: Sequence[int],
        line_bytes_max: int,
        gate: Gate,
        ids: ItemIds,
        admission: Admission,
        brought: int = 0,
        closed: bool = False,
    ) -> None:
        """A feed.

        Args:
            index: Of the source.
            source: Its settings.
            agents: Who takes its events; nobody: they are items.
            line_bytes_max: Longest line.
            gate: Where events go.
            ids: Of every item so far.
            admission: How many have entered.
            brought: Events that it brought before, of a run that goes on.
            closed: It had ended by then.
        """
        self.source, self.agents = source, agents
        self.line_bytes_max = line_bytes_max
        self.closed = closed
        self.brought = brought
        self._index, self._gate, self._ids, self._admission = index, gate, ids, admission
        self._waiting = dict.fromkeys(agents, 0)  # Agent -> events it was not woken with yet.

    @property
    def next_item(self) -> int:
        """Number that the next item has."""
        return len(self._ids) + 1

    def may_read(self) -> bool:
        """Whether there is room for one more event."""
        if self._waiting:
            return max(self._waiting.values()) < WAITING_MAX
        entered = max(self._admission.admitted, self._ids.given)  # Those of the file do not count.
        return len(self._ids) - entered < WAITING_MAX

    def bring(self, line: bytes, told: Told | None = None, call: bool = False) -> None:
        """An event; ``call``: an item that is a call to a model.

        Raises:
            ValueError: it should be an item and is none.
        """
        if self.source.to:
            for agent in self._waiting:
                self._waiting[agent] += 1
        else:
            self._ids.add(line, self.line_bytes_max)
        self.brought += 1
        what = What.EVENT if self.source.to else What.CALL if call else What.ITEM
        self._gate.bring(what, self._index, line, told=told)

    def close(self, told: Told | None = None) -> None:
        """No more will come."""
        if not self.closed:
            self.closed = True
            self._gate.bring(What.CLOSED, self._index, told=told)

    def took(self, agent: int, count: int) -> None:
        """An agent was woken with so many events of the source."""
        if agent in self._waiting:
            # Of a run that goes on, some came before this process began to count.
            self._waiting[agent] = max(self._waiting[agent] - count, min(self._waiting[agent], 0))

    def lost(self, agent: int) -> None:
        """The agent has ended; with the last one nobody takes anything, and nothing waits."""
        if agent in self._waiting:
            self._waiting[agent] = -(2**62)
