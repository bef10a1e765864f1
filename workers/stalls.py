"""Stalls: who held the inference process back, how often and for how long.

Wall time, for people: it is measured beside the run and decides nothing in it. After each pump
the sequencer says whether its engine has work that it may not do yet, and who it waits for; that
holds until the next pump.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

NOBODY = -1  # The engine waits for what is under way.
SHOWN = 10


@dataclass(slots=True)
class _Held:
    seconds: float = 0.0
    steps: int = 0
    last: int = -2  # Step that was counted last.


class Stalls:
    """Order of use: `look` after each pump; `ended` for each turn.

    Attributes:
        holder: Agent that holds the engine back now; `NOBODY`, or None when it does not wait.
    """

    def __init__(
        self, names: Sequence[str], fuel_per_step: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._names, self._fuel_per_step, self._clock = names, fuel_per_step, clock
        self._held: dict[int, _Held] = {}
        self._fuel = [0] * len(names)
        self._turns = [0] * len(names)
        self._since_s = clock()
        self.holder: int | None = None

    def look(self, holder: int | None, step: int) -> int | None:
        """Who holds the engine back from now on; the agent that has held it until now, if any.

        Args:
            holder: An agent's index, `NOBODY`, or None.
            step: The last one that the engine reported: the next one waits.
        """
        if holder is None and self.holder is None:
            return None
        now_s, before = self._clock(), self.holder
        if before is not None:
            self._held[before].seconds += now_s - self._since_s
        self.holder, self._since_s = holder, now_s
        if holder is not None:
            held = self._held.setdefault(holder, _Held())
            held.steps += held.last != step
            held.last = step
        return None if before == NOBODY else before

    def fuel(self, agent: int) -> int:
        """Fuel of an agent's turns so far."""
        return self._fuel[agent]

    def held_us(self, agent: int) -> int:
        """Microseconds for which the engine waited for an agent."""
        held = self._held.get(agent)
        return 0 if held is None else int(held.seconds * 1e6)

    def ended(self, agent: int, fuel: int) -> None:
        """A turn of an agent is over."""
        self._fuel[agent] += fuel
        self._turns[agent] += 1

    def seconds(self) -> float:
        """Wall time that the engine waited."""
        return sum(held.seconds for held in self._held.values())

    def table(self) -> list[dict[str, Any]]:
        """For the summary: the longest first, at most `SHOWN`.

        ``agent`` is empty where nobody in particular was waited for; ``quanta`` is the mean fuel
        of the agent's turns in units of ``fuel_per_step``.
        """
        order = sorted(self._held, key=lambda agent: (-self._held[agent].seconds, agent))
        return [self._row(agent) for agent in order[:SHOWN]]

    def _row(self, agent: int) -> dict[str, Any]:
        held = self._held[agent]
        row = {"agent": "", "steps": held.steps, "seconds": round(held.seconds, 3)}
        if agent == NOBODY:
            return row
        fuel = self._fuel[agent] / max(self._turns[agent], 1)
        quanta = round(fuel / self._fuel_per_step, 3)
        return {**row, "agent": self._names[agent], "quanta": quanta}
