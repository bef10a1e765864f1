"""Repetition: a second execution, compared with the record entry by entry while it runs.

At the first difference there is nothing more to learn from what follows, so that it stops there.
Where only the texts can be expected to be equal (another type of CPU), it runs to its end: they
are compared then.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lockstep.engine.errors import Diverged
from lockstep.workers import lineage
from lockstep.workers.expectation import BITS, SINCE, expect


class Repetition:
    """What the next entries have to be. One writer: the supervisor of the second execution."""

    def __init__(self, entries: Iterable[bytes]) -> None:
        """
        Args:
            entries: Bodies of the recorded entries that are executed again, in order.
        """
        self._expected = [_hash(body) for body in entries]
        self._next = 0
        self._differences: list[str] = []

    @classmethod
    def of(cls, run: Path) -> "Repetition":
        """Of a run folder; what a fork shares is not executed again. Errors as `lineage.read`."""
        found = lineage.read(run)
        return cls(found.past.entries[len(found.shared.entries) :])

    def noted(self, text: str) -> None:
        """A note of the supervisor: some say what differs of the machine."""
        if text.startswith(SINCE):
            self._differences.append(text.removeprefix(SINCE))

    def take(self, body: bytes) -> None:
        """The next entry came out; it is in the journal of the second execution already.

        Raises:
            Diverged: it is not the recorded one, and it was expected to be.
        """
        number, self._next = self._next, self._next + 1
        if number >= len(self._expected) or _hash(body) == self._expected[number]:
            return
        if expect(self._differences).leaves == BITS:
            raise Diverged(f"entry {number} of the history is not the recorded one")


def _hash(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
