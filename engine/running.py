"""Running turns: who is in one, since when, and the earliest tag it can still reach."""

import heapq
from collections.abc import Iterator

from lockstep.engine.tag import INFINITE_STEP, Tag


class Running:
    """Turns that are not over physically, by agent."""

    def __init__(self) -> None:
        self._turns: dict[int, tuple[Tag, Tag]] = {}  # Agent -> (begun, low effect tag).
        self._lows: list[tuple[Tag, int]] = []  # Heap; entries that were replaced linger.

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, agent: int) -> bool:
        return agent in self._turns

    def __iter__(self) -> Iterator[int]:
        return iter(self._turns)

    def begin(self, agent: int, begun: Tag, low: Tag) -> None:
        """A turn began at a tag; no effect of it comes before ``low``."""
        self._turns[agent] = (begun, low)
        if low[0] < INFINITE_STEP:  # Else it holds nothing, and nobody would take it out again.
            heapq.heappush(self._lows, (low, agent))

    def begun(self, agent: int) -> Tag:
        """Tag at which the agent's turn began."""
        return self._turns[agent][0]

    def raise_low(self, agent: int, low: Tag) -> None:
        """A turn cannot take effect before ``low`` any more. Never falls."""
        begun, before = self._turns[agent]
        if low > before:
            self.begin(agent, begun, low)

    def end(self, agent: int) -> Tag:
        """The turn is over; the tag at which it began."""
        return self._turns.pop(agent)[0]

    def lowest(self) -> tuple[Tag, int] | None:
        """The earliest tag that a running turn can reach, and whose it is."""
        while self._lows:
            low, agent = self._lows[0]
            if agent in self._turns and self._turns[agent][1] == low:
                return low, agent
            heapq.heappop(self._lows)
        return None
