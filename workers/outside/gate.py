"""The gate: the one way in for outside events, and who is told what became of them.

An event gets its number and tag from the sequencer; who brought it hears of them after the record
that keeps them is as durable as promised, never before.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from lockstep.engine.outside import Outside, What, from_record
from lockstep.engine.record import HEADER, Kind, decode_at

Told = Callable[[Outside | None], None]  # None: the run ended before the event was taken.


class Taker(Protocol):
    """What of the sequencer takes outside events."""

    def outside(self, what: What, source: int, payload: bytes = b"", flags: int = 0) -> object:
        """An event arrived."""


class Gate:
    """Order of use: `bring` any number, the sequencer's pump, `kept` for each record, `take`; then
    `reveal` what was taken when it is durable, while others come.

    Args:
        taker: Gives events their number and tag.
        past: Events that were kept before, of a run that goes on.

    Attributes:
        counts: Events that were kept, by `What`.
    """

    def __init__(self, taker: Taker, past: Sequence[Outside] = ()) -> None:
        self._taker = taker
        self._brought: deque[Told | None] = deque()
        self._kept: deque[tuple[Told, Outside]] = deque()
        self._taken = 0  # Of them: `take` counted them.
        self.counts: dict[int, int] = {}
        for event in past:
            self._count(event)

    def bring(
        self,
        what: What,
        source: int,
        payload: bytes = b"",
        flags: int = 0,
        told: Told | None = None,
    ) -> None:
        """An event arrived; ``told`` is called when it is promised, or never will be."""
        self._brought.append(told)
        self._taker.outside(what, source, payload, flags)

    def kept(self, record: bytes) -> None:
        """The sequencer wants this kept: is it one of ours? In order of arrival."""
        if HEADER.unpack_from(record)[1] != Kind.OUTSIDE:
            return
        event = from_record(decode_at(record, 0)[0])
        self._count(event)
        told = self._brought.popleft() if self._brought else None
        if told is not None:
            self._kept.append((told, event))

    def _count(self, event: Outside) -> None:
        self.counts[event.what] = self.counts.get(event.what, 0) + 1

    def take(self) -> int:
        """How many were kept since the last call; `reveal` takes the number back."""
        count = len(self._kept) - self._taken
        self._taken += count
        return count

    def reveal(self, count: int) -> None:
        """So many of those that were taken are durable now: tell, in order."""
        self._taken -= count
        for told, event in [self._kept.popleft() for _ in range(count)]:
            told(event)

    @property
    def untold(self) -> bool:
        """Whether somebody waits to be told who was not taken yet."""
        return len(self._kept) > self._taken

    @property
    def unseen(self) -> bool:
        """Whether something was brought that the sequencer's pump has not looked at yet."""
        return bool(self._brought)

    def close(self) -> None:
        """The run is over: tell those whose event was never taken, or is not promised."""
        waiting = [told for told, _ in self._kept] + [
            told for told in self._brought if told is not None
        ]
        self._brought.clear()
        self._kept.clear()
        for told in waiting:
            told(None)
