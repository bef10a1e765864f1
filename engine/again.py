"""Again: the recorded runs of the models that make what their slots hold (engine/lineage.py). Pure.

Read forwards. The composition of a run is the recorded one: every row that decoded with it, the
range of slots from the first to the last of them, and the length of every slot in between. What is
in a row that nobody needs any more may be anything: a row's bits do not depend on the values in
other rows, only on how many there are and where.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lockstep.engine.fleet import Fleet
from lockstep.engine.plan import FINISH_STATUS, Copy, Decode
from lockstep.engine.record import HEADER, HEADER_BYTES, Kind
from lockstep.engine.restored import Again, PastChunk, Said
from lockstep.engine.wire import FromEngine

INVALID = FINISH_STATUS["invalid_output"]
_AT_BOUNDARY = (FINISH_STATUS["cancelled"], FINISH_STATUS["timeout"])
_NOT_OF_A_MODEL = (FromEngine.END, FromEngine.TAKEN)
_ROW = struct.Struct("<HHIQqq")  # RESULT_SLOT; a step has few, numpy would cost more.

Row = tuple[int, int, int, int, int, int]


@dataclass(slots=True)
class _Active:
    """A row that was active."""

    ticket: int
    sample: int
    said: list[int] = field(default_factory=list)


class _Model:
    """The slots of a model as they were in the step that is being read."""

    def __init__(self, rows_max: int, rows_kept: int, period: int) -> None:
        self.rows_max = rows_max
        self.period = period
        self.lengths = [0] * (rows_max + rows_kept)
        self.active: dict[int, _Active] = {}  # By slot.

    def copy(self, row: Row) -> None:
        op, _, slot, source, a, b = row
        self.lengths[slot] = a + b
        if op == FromEngine.MOVE:
            self.lengths[source] = 0
            if source in self.active:
                self.active[slot] = self.active.pop(source)

    def drop(self, ticket: int, status: int) -> None:
        """A ticket ended, and with it what is left of its rows."""
        for slot in [slot for slot, row in self.active.items() if row.ticket == ticket]:
            self.leave(slot)
            if status == INVALID:
                self.lengths[slot] = 0

    def leave(self, slot: int) -> None:
        if self.active.pop(slot).sample:
            self.lengths[slot] = 0  # Free: it has no conversation to keep it for.


class Forward:
    """Recorded steps as runs.

    Args:
        fleet: What ran.
        entries: The whole history.
        needed: Of `Lineage`.
    """

    def __init__(
        self, fleet: Fleet, entries: Sequence[bytes], needed: Mapping[int, Mapping[int, int]]
    ) -> None:
        self._entries = entries
        self._needed = needed
        self._models = [_Model(m.rows_max, m.rows_kept, m.period) for m in fleet.models]

    def again(self) -> Iterator[Again]:
        """Every run that is needed, in order."""
        for number in range(max(self._needed, default=-1) + 1):
            entry = self._entries[number]
            head = HEADER.unpack_from(entry, 0)
            if head[1] == Kind.STEP:
                yield from self._step(head[3], rows_of(entry), self._needed.get(number, {}))

    def _step(self, step: int, rows: list[Row], needed: Mapping[int, int]) -> Iterator[Again]:
        for op, _, _, ticket, status, _ in rows:
            if op == FromEngine.END and status in _AT_BOUNDARY:
                self._drop(ticket, status)
        for index, model in enumerate(self._models):
            if step % model.period == 0:
                run = _Run(model)
                for number, row in enumerate(rows):
                    if row[1] == index and row[0] not in _NOT_OF_A_MODEL:
                        run.row(row, needed.get(number, 0))
                if run.is_needed():
                    yield run.again(step, index)
                run.book()
        for op, index, slot, ticket, status, _ in rows:
            if op == FromEngine.LEAVE:
                self._models[index].leave(slot)
            elif op == FromEngine.END:
                self._drop(ticket, status)

    def _drop(self, ticket: int, status: int) -> None:
        for model in self._models:
            model.drop(ticket, status)


class _Run:
    """What a model did in a step, and what is needed of it."""

    def __init__(self, model: _Model) -> None:
        self._model = model
        self._decoding = [row for row in model.active.values() if row.said]
        self._copies: list[Copy] = []
        self._chunks: list[PastChunk] = []
        self._tokens: dict[int, int] = {}  # By slot.
        self._needed: list[int] = []  # Slots with a needed decode.

    def row(self, row: Row, needed: int) -> None:
        """The next one of the record; so many tokens that it wrote are needed."""
        op, _, slot, ticket, a, b = row
        model = self._model
        if op in (FromEngine.COPY, FromEngine.MOVE):
            model.copy(row)
            if needed:
                self._copies.append(Copy(ticket, slot, a, needed, op == FromEngine.MOVE))
        elif op == FromEngine.ADMIT:
            model.lengths[slot] = a
            model.active[slot] = _Active(ticket, b)
        elif op == FromEngine.CHUNK:
            model.lengths[slot] = a + b
            if needed:
                self._chunks.append(PastChunk(ticket, slot, a, b, model.active[slot].sample))
        elif op == FromEngine.TOKEN:
            self._tokens[slot] = a
            if needed:
                self._needed.append(slot)

    def is_needed(self) -> bool:
        return bool(self._copies or self._chunks or self._needed)

    def again(self, step: int, index: int) -> Again:
        """The run, before `book`."""
        compared = [*(chunk.slot for chunk in self._chunks), *self._needed]
        active = self._model.active
        said = {
            slot: Said(active[slot].ticket, active[slot].sample, len(active[slot].said), token)
            for slot, token in self._tokens.items()
            if slot in compared
        }
        return Again(
            step,
            index,
            tuple(self._chunks),
            tuple(self._decodes()) if self._needed else (),
            tuple(self._model.lengths[: self._model.rows_max]),
            said,
            tuple(self._copies),
        )

    def _decodes(self) -> Iterator[Decode]:
        for slot in self._slots():
            row, past = self._model.active[slot], self._model.lengths[slot]
            yield Decode(row.ticket, slot, past, row.said[-1], row.sample)

    def _slots(self) -> list[int]:
        """Where the rows are that decode, which may have moved."""
        active = self._model.active
        return sorted(s for s, row in active.items() if any(row is d for d in self._decoding))

    def book(self) -> None:
        """The slots are as the run left them."""
        for slot in self._slots():
            self._model.lengths[slot] += 1
        for slot, token in self._tokens.items():
            self._model.active[slot].said.append(token)


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
