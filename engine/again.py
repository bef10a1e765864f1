"""Again: which recorded runs of a model make what its slots hold. Pure.

Read forwards, from the oldest admission that matters. The composition of a run is the recorded
one: every row that decoded with it, the range of slots from the first to the last of them, and
the length of every slot in between. What is in a row that nobody needs any more may be anything:
a row's bits do not depend on the values in other rows, only on how many there are and where.
"""

import struct
from collections.abc import Callable, Iterator, Sequence

from lockstep.engine.fleet import Fleet
from lockstep.engine.plan import FINISH_STATUS, Decode
from lockstep.engine.record import HEADER, HEADER_BYTES, Kind
from lockstep.engine.restored import Again, PastChunk, Said
from lockstep.engine.wire import FromEngine

INVALID = FINISH_STATUS["invalid_output"]
_ROW = struct.Struct("<HHIQqq")  # RESULT_SLOT; a step has few, numpy would cost more.

Key = tuple[int, int]  # (model, slot)
Row = tuple[int, int, int, int, int, int]


class Forward:
    """Recorded steps from an entry on, as runs: which rows ran, and what their slots held."""

    def __init__(
        self, fleet: Fleet, entries: Sequence[bytes], first: int, needed: dict[int, int]
    ) -> None:
        self._entries = entries
        self._first = first
        self._needed = needed
        self._rows = [model.rows_max for model in fleet.models]
        self._lengths = [[0] * rows for rows in self._rows]
        self._where: dict[int, Key] = {}  # Slot of each ticket that was met.
        self._said: dict[int, list[int]] = {}

    def again(self) -> Iterator[Again]:
        """Every run that is needed, in order."""
        self._look_back()
        for number in range(self._first, len(self._entries)):
            entry = self._entries[number]
            head = HEADER.unpack_from(entry, 0)
            if head[1] == Kind.STEP:
                yield from self._step(head[3], rows_of(entry))

    def _look_back(self) -> None:
        """What every slot held before the first step: its last row says so."""
        unknown = {(m, slot): None for m, rows in enumerate(self._rows) for slot in range(rows)}
        invalid: dict[int, None] = {}
        for number in range(self._first - 1, -1, -1):
            if not unknown:
                return
            entry = self._entries[number]
            if HEADER.unpack_from(entry, 0)[1] != Kind.STEP:
                continue
            for row in reversed(rows_of(entry)):
                op, model, slot, ticket, a, b = row
                if op == FromEngine.END and a == INVALID:
                    invalid[ticket] = None
                if op not in _HELD or (model, slot) not in unknown:
                    continue
                del unknown[model, slot]
                self._where[ticket] = (model, slot)
                self._lengths[model][slot] = 0 if ticket in invalid else _HELD[op](a, b)

    def _step(self, step: int, rows: list[Row]) -> Iterator[Again]:
        chunks: dict[int, PastChunk] = {}
        decodes: dict[int, None] = {}  # Tickets; those whose output was not finite, too.
        tokens: dict[int, int] = {}
        poisoned: list[int] = []
        for op, model, slot, ticket, a, b in rows:
            if op in _HELD:
                self._where[ticket] = (model, slot)
            if op == FromEngine.ADMIT:
                self._lengths[model][slot] = a
            elif op == FromEngine.CHUNK:
                chunks[ticket] = PastChunk(ticket, slot, a, b)
                self._lengths[model][slot] = a + b
            elif op == FromEngine.TOKEN:
                tokens[ticket] = a
            elif op == FromEngine.END and a == INVALID:
                poisoned.append(ticket)
        for ticket in [*tokens, *poisoned]:
            if ticket not in chunks:
                decodes[ticket] = None
        for model in range(len(self._rows)):
            again = self._run(step, model, chunks, decodes, tokens)
            if again is not None:
                yield again
        self._book(tokens, decodes, poisoned, rows)

    def _run(
        self,
        step: int,
        model: int,
        chunks: dict[int, PastChunk],
        decodes: dict[int, None],
        tokens: dict[int, int],
    ) -> Again | None:
        mine = [chunk for chunk in chunks.values() if self._where[chunk.ticket][0] == model]
        again = tuple(chunk for chunk in mine if self._holds(chunk.ticket, chunk.start))
        lengths = tuple(self._lengths[model])
        rows: list[Decode] = []
        for ticket in decodes:
            of, slot = self._where[ticket]
            if of == model:
                said = self._said.get(ticket)
                rows.append(Decode(ticket, slot, lengths[slot], said[-1] if said else 0))
        held = [row.ticket for row in rows if self._holds(row.ticket, row.past)]
        if not again and not held:
            return None
        said_of = [chunk.ticket for chunk in again] + held
        return Again(
            step,
            model,
            again,
            tuple(sorted(rows, key=lambda row: row.slot)) if held else (),
            lengths,
            {
                self._where[t][1]: Said(t, 0, len(self._said.get(t, ())), tokens[t])
                for t in said_of
                if t in tokens
            },
        )

    def _holds(self, ticket: int, position: int) -> bool:
        return position < self._needed.get(ticket, 0)

    def _book(
        self,
        tokens: dict[int, int],
        decodes: dict[int, None],
        poisoned: list[int],
        rows: list[Row],
    ) -> None:
        for ticket in decodes:
            model, slot = self._where[ticket]
            self._lengths[model][slot] += 1
        for ticket in poisoned:
            model, slot = self._where[ticket]
            self._lengths[model][slot] = 0
        for ticket, token in tokens.items():
            self._said.setdefault(ticket, []).append(token)
        for row in rows:
            if row[0] == FromEngine.END:
                self._said.pop(row[3], None)
                self._where.pop(row[3], None)


# Rows that say how much their slot holds behind them, from their last two fields.
_HELD: dict[int, Callable[[int, int], int]] = {
    FromEngine.ADMIT: lambda a, b: a,
    FromEngine.CHUNK: lambda a, b: a + b,
    FromEngine.TOKEN: lambda a, b: b,
}


def rows_of(entry: bytes) -> list[Row]:
    """The slots of a STEP entry, without STEP itself.

    Raises:
        ValueError: there is no end of them.
    """
    rows: list[Row] = []
    body = memoryview(entry)[HEADER_BYTES:]
    for row in _ROW.iter_unpack(body[: len(body) // _ROW.size * _ROW.size]):
        if row[0] == FromEngine.STEP:
            return rows
        rows.append(row)
    raise ValueError("a step without its last slot")
