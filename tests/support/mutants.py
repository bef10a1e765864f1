"""Sequencers with one part that breaks a rule."""

from typing import Any

from lockstep.engine.ending import Ending
from lockstep.engine.horizon import Horizon
from lockstep.engine.sequencer import Sequencer


def sequencer_of(part: type[Horizon] | type[Ending]) -> type[Sequencer]:
    """A sequencer that goes by another horizon or ending."""

    class Mutant(Sequencer):
        __doc__ = part.__doc__

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            if issubclass(part, Horizon):
                self.horizon = part(
                    self.world,
                    self._order,
                    self._agenda,
                    self._running,
                    self._reports,
                    self.horizon.fallbacks,
                )
            ending = part if issubclass(part, Ending) else Ending
            self._ending = ending(
                self.world, self._agenda, self._running, self._arrivals, self.horizon
            )

    return Mutant
