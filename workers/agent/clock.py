"""The guest's clock: logical time in microseconds, a little later at each look (rule 15)."""

_NANOSECONDS_MAX = 2**64 - 1
US_MAX = _NANOSECONDS_MAX // 1000  # A guest that sleeps to the end of time stays there.


class GuestClock:
    """``max(last + 1 us, tag time)``; tag time is the frozen date plus the steps so far.

    Args:
        epoch_us: Microseconds since 1970 at step 0.
        step_us: Microseconds per step.
    """

    def __init__(self, epoch_us: int, step_us: int) -> None:
        self._epoch_us = epoch_us
        self._step_us = step_us
        self._tag_us = epoch_us
        self._last_us = -1

    def begin_turn(self, step: int) -> None:
        """The guest was woken at a tag of ``step``."""
        self._tag_us = self._epoch_us + step * self._step_us

    def read_us(self) -> int:
        """The time now. Never the same twice."""
        self._last_us = min(max(self._last_us + 1, self._tag_us), US_MAX)
        return self._last_us

    def advance_to(self, moment_us: int) -> None:
        """The guest slept until ``moment_us``: no later read shows less."""
        self._last_us = min(max(self._last_us, moment_us), US_MAX)

    def state(self) -> int:
        """What lasts from turn to turn: microseconds at the last look, -1 before the first."""
        return self._last_us

    def restore(self, state: int) -> None:
        """Go on where `state` was."""
        self._last_us = state
