"""A loop, and a sequencer that only numbers what comes in from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lockstep.engine.outside import Outside, What
from lockstep.workers.loop import Loop
from lockstep.workers.outside.gate import Gate


class Intake:
    """Takes outside events at tags of its own and keeps them at each `pump`.

    Attributes:
        events: In order of arrival.
    """

    def __init__(self) -> None:
        self.loop = Loop()
        self.gate = Gate(self)
        self.events: list[Outside] = []
        self._kept = 0

    def outside(self, what: What, source: int, payload: bytes = b"", flags: int = 0) -> None:
        number = len(self.events) + 1
        self.events.append(Outside(number, (10 * number, 0), what, source, flags, payload))

    def pump(self) -> None:
        """What arrived is kept and promised."""
        while self._kept < len(self.events):
            self.gate.kept(self.events[self._kept].record())
            self._kept += 1
        self.gate.reveal(self.gate.take())

    def until(self, reached: Callable[[], bool]) -> None:
        """Go on until something is so; the test's time-out bounds it."""
        while not reached():
            self.loop.turn(0.01)
            self.pump()

    def seen(self) -> list[tuple[What, int, bytes]]:
        """What arrived."""
        return [(What(event.what), event.source, event.payload) for event in self.events]


@pytest.fixture
def intake() -> Iterator[Intake]:
    intake = Intake()
    yield intake
    intake.loop.close()
