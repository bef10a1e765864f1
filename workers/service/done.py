"""Done: what a run did since a service holds it, in numbers that only grow."""

from collections import Counter
from typing import Any

TOLD = ("tokens_in", "tokens", "steps", "turns", "restarts")  # Of what a run tells of itself.
DEATHS = "supervisor_restarts"
COUNTED = (*TOLD, DEATHS)


class Done:
    """Of one run.

    Args:
        new: It began with us; else what it did before does not count.

    Attributes:
        counts: By the names of `COUNTED`.
        progress: What it told last.
    """

    def __init__(self, new: bool = True) -> None:
        self.counts: Counter[str] = Counter()
        self.progress: dict[str, Any] = {}
        self._new = new

    def told(self, progress: dict[str, Any]) -> None:
        """It tells how far it is."""
        before = self.progress or ({} if self._new else progress)
        for key in TOLD:  # After a death it may be less: what was not recorded is done again.
            self.counts[key] += max(progress[key] - before.get(key, 0), 0)
        self.progress = progress

    def died(self) -> None:
        """Its supervisor is started again."""
        self.counts[DEATHS] += 1
