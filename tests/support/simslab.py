"""Keys and values, played: what a position holds is how it was computed, and from what before it.

So a wrong copy, or what an earlier tenant left in a slot, shows in whatever is computed behind it.
And who is about to compute in a slot is told whether it holds what it must: the row's own tokens,
each computed by prefill on what lies before it, or generated in the row's own conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lockstep.engine.plan import Chunk, Copy, ModelPlan

PREFILL = (-1, -1)  # How a position was computed: else, by decoding, in which conversation.

How = tuple[int, int]
Whose = Callable[[int, int], How]  # Ticket and sample -> its conversation.


class SimSlab:
    """Slots of all models, and how far the copies of a step came (workers/inference/copies.py)."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int, int], int] = {}  # By model, slot, position.
        self._done: dict[int, tuple[int, int]] = {}  # Model -> step, copies of it.

    def run(self, step: int | None, part: ModelPlan, whose: Whose) -> Iterator[None]:
        """Execute a plan; between any two actions the process may die."""
        of, done = self._done.get(part.model, (-1, 0))
        skip = done if of == step else 0
        for number, copy in enumerate(part.copies[skip:], skip + 1):
            self._copy(part.model, copy)
            yield
            if step is not None:
                self._done[part.model] = step, number
            yield
        for chunk in part.chunks:
            self._prefill(part.model, chunk, whose(chunk.ticket, chunk.sample))
            yield
        for slot in self._range(part):
            self._put(part.model, slot, part.lengths[slot], 0)  # Idle ones compute, too.
        for row in part.decodes:
            how = whose(row.ticket, row.sample)
            self._write(part.model, row.slot, row.past, row.token, how)
        yield

    def _range(self, part: ModelPlan) -> list[int]:
        slots = [row.slot for row in part.decodes]
        return [n for n in range(min(slots), max(slots)) if n not in slots] if slots else []

    def _copy(self, model: int, copy: Copy) -> None:
        for place in range(copy.start, copy.start + copy.count):
            self._put(model, copy.slot, place, self.last(model, copy.source, place + 1))

    def _prefill(self, model: int, chunk: Chunk, whose: How) -> None:
        how = whose if len(chunk.tokens) == 1 else PREFILL  # Another kernel.
        for place, token in enumerate(chunk.tokens, chunk.start):
            self._write(model, chunk.slot, place, token, how)

    def _write(self, model: int, slot: int, place: int, token: int, how: How) -> None:
        self._put(model, slot, place, hash((self.last(model, slot, place), token, *how)))

    def _put(self, model: int, slot: int, place: int, cell: int) -> None:
        self._cells[model, slot, place] = cell

    def last(self, model: int, slot: int, length: int) -> int:
        """What the last of so many positions holds: all of them are in it."""
        return self._cells.get((model, slot, length - 1), 0) if length else 1

    def check(self, model: int, slot: int, tokens: Sequence[int], whose: How) -> None:
        """A slot must begin with these tokens, computed as its row alone would have."""
        for place, token in enumerate(tokens):
            before, cell = self.last(model, slot, place), self.last(model, slot, place + 1)
            known = [hash((before, token, *how)) for how in (PREFILL, whose)]
            assert cell in known, f"slot {slot} of model {model}, position {place}: wrong content"
