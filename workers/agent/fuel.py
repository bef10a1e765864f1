"""Fuel of one turn: what the guest's instructions burnt, and what its host calls cost.

The count is in one place at a time: in the store while the guest runs, here while the host does.
`give` and `take` move it, so that a host call reads and writes the store once each.
"""

from collections.abc import Callable
from typing import Protocol

from lockstep.engine.record import Outcome
from lockstep.workers.agent.spec import GuestStopped

HOST_CALL_FUEL = 1_000  # Each call into the host, so that a loop of them ends, too.


class FuelTank(Protocol):
    """The part of a wasmtime store that holds fuel."""

    def get_fuel(self) -> int:
        """Fuel left."""

    def set_fuel(self, fuel: int) -> None:
        """Replace the fuel left."""


class Fuel:
    """Each turn begins with ``turn_max``; nothing is carried over. The host runs first.

    Args:
        tank: Of the guest's store.
        turn_max: Fuel of one turn.
        quantum: Fuel between two publications; 0 for none.
        publish: Is told what the turn has burnt, at least, whenever that has passed a multiple
            of ``quantum`` since the last time. It must not change what the turn does.

    Attributes:
        tank: As given.
        turn_max: As given.
    """

    def __init__(
        self,
        tank: FuelTank,
        turn_max: int,
        quantum: int = 0,
        publish: Callable[[int], None] | None = None,
    ) -> None:
        self.tank = tank
        self.turn_max = turn_max
        self._quantum = quantum if publish is not None else 0
        self._publish = publish
        self._first_mark = turn_max - self._quantum if self._quantum else -1
        self._left = 0
        self._publish_below = -1

    def begin_turn(self) -> None:
        """Fill up."""
        self._left = self.turn_max
        self._publish_below = self._first_mark

    def give(self) -> None:
        """The guest runs from here on."""
        if self._left <= self._publish_below:
            self._tell()
        self.tank.set_fuel(self._left)

    def take(self) -> None:
        """The host runs from here on."""
        self._left = self.tank.get_fuel()

    def peek(self) -> None:
        """The guest was paused: publish what it has burnt, and leave the count where it is."""
        self._left = self.tank.get_fuel()
        if self._left <= self._publish_below:
            self._tell()

    def charge(self, amount: int) -> None:
        """Take ``amount`` as if the guest had burnt it.

        Raises:
            GuestStopped: OUT_OF_FUEL: not so much is left; the turn has burnt all of it.
        """
        left = self._left - amount
        if left < 0:
            self._left = 0
            raise self.spent()
        self._left = left

    def begin_quietly(self, amount: int) -> bool:
        """`begin_turn`, `charge` and `give` in one, if that needs nobody to be told.

        Returns:
            False: nothing was done.
        """
        left, mark = self.turn_max - amount, self._first_mark
        if left < 0 or left <= mark:
            return False
        self._left, self._publish_below = left, mark
        self.tank.set_fuel(left)
        return True

    def burnt(self) -> int:
        """Fuel of the turn so far; the host asks."""
        return self.turn_max - self._left

    def spent(self) -> GuestStopped:
        """The end of a turn that had no fuel left."""
        return GuestStopped(Outcome.OUT_OF_FUEL, f"turn_fuel_max = {self.turn_max}")

    def _tell(self) -> None:
        """Publish, and set the mark for the next time."""
        if self._publish is not None:
            burnt = self.burnt()
            self._publish(burnt)
            next_one = (burnt // self._quantum + 1) * self._quantum
            self._publish_below = self.turn_max - next_one
