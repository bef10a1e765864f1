"""Lineage: which recorded writes made what the slots hold at the end of a record. Pure.

Read backwards. A position that is held was written by a chunk, a decode or a copy; what a chunk
or a decode computed rests on every position before it in its slot, and what was copied on the
same positions of the slot that it came from. So it is always the beginning of a slot that is
needed, up to some length, and each write that is met shortens it.
"""

from collections.abc import Iterable, Sequence

from lockstep.engine.errors import JournalCorrupt
from lockstep.engine.restored import Kept
from lockstep.engine.wire import FromEngine

Key = tuple[int, int]  # (model, slot)
Row = tuple[int, int, int, int, int, int]


class Lineage:
    """Steps, fed from the last to the first.

    Attributes:
        needed: Entry -> numbers of its rows whose writes are needed, and how many tokens of each.
        tickets: Whose prompts those were.
    """

    def __init__(self, kept: Iterable[Kept]) -> None:
        self._need: dict[Key, int] = {}  # Positions below it are needed, as they are by now.
        for slot in kept:
            length = slot.filled + max(0, len(slot.tokens) - 1)
            if length:
                self._need[slot.model, slot.slot] = length
        self.needed: dict[int, dict[int, int]] = {}
        self.tickets: dict[int, None] = {}

    def is_complete(self) -> bool:
        """Whether nothing before is needed."""
        return not self._need

    def step(self, entry: int, rows: Sequence[Row]) -> None:
        """The step before those that were met."""
        computed = {row[1:3]: None for row in rows if row[0] == FromEngine.CHUNK}
        found: dict[int, int] = {}
        for number in range(len(rows) - 1, -1, -1):
            count = self._needs(rows[number], rows[number][1:3] in computed)
            if count:
                found[number] = count
        if found:
            self.needed[entry] = found

    def _needs(self, row: Row, prefilled: bool) -> int:
        """Tokens that a row wrote and that are needed."""
        op, model, slot, ticket, a, b = row
        need = self._need.get((model, slot), 0)
        if need == 0:
            return 0
        if op == FromEngine.TOKEN and not prefilled and need >= b:
            self._set((model, slot), b - 1)
            return 1
        if op == FromEngine.CHUNK and need > a:
            self._set((model, slot), a)
            self.tickets[ticket] = None
            return b
        if op in (FromEngine.COPY, FromEngine.MOVE) and need > a:
            self._set((model, slot), a)
            source = self._need.get((model, ticket), 0)
            until = min(need, a + b)
            self._set((model, ticket), max(source, until))
            return until - a
        return 0

    def _set(self, key: Key, need: int) -> None:
        self._need.pop(key, None)
        if need:
            self._need[key] = need

    def check(self) -> None:
        """Everything has been met.

        Raises:
            JournalCorrupt: there is something that nothing in the record wrote.
        """
        for (model, slot), need in self._need.items():
            raise JournalCorrupt(
                f"slot {slot} of model {model}: nothing in the record wrote its first {need} tokens"
            )
