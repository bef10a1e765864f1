"""Fuel of one turn: what the guest's instructions burnt, and what its host calls cost."""

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
    """Each turn begins with ``turn_max``; nothing is carried over.

    The count is exact inside a host call: generated code stores it before it calls out, and
    loads it again afterwards.
    """

    def __init__(self, tank: FuelTank, turn_max: int) -> None:
        self._tank = tank
        self._turn_max = turn_max

    def begin_turn(self) -> None:
        """Fill up."""
        self._tank.set_fuel(self._turn_max)

    def charge(self, amount: int) -> None:
        """Take ``amount`` as if the guest had burnt it.

        Raises:
            GuestStopped: OUT_OF_FUEL: not so much is left; the turn has burnt all of it.
        """
        left = self._tank.get_fuel()
        if left < amount:
            self._tank.set_fuel(0)
            raise self.spent()
        self._tank.set_fuel(left - amount)

    def burnt(self) -> int:
        """Fuel of the turn so far."""
        return self._turn_max - self._tank.get_fuel()

    def spent(self) -> GuestStopped:
        """The end of a turn that had no fuel left."""
        return GuestStopped(Outcome.OUT_OF_FUEL, f"turn_fuel_max = {self._turn_max}")
