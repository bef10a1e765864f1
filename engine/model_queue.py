"""Queue and rows of one model: who waits, who is active, what runs in the next step. Pure."""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

from lockstep.engine.fleet import Model
from lockstep.engine.plan import (
    ALL_SHARED,
    Admission,
    Chunk,
    Decode,
    Ended,
    Left,
    ModelPlan,
    Outcome,
    Request,
)
from lockstep.engine.prefix import copy_prefixes
from lockstep.engine.restored import Kept
from lockstep.engine.slots import Row, Slots

CHUNK_TOKENS_MIN = 3  # Smallest budget with which every prompt gets on (see `_chunk_size`).


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What the planner must know of one model.

    Attributes:
        rows_max: KV slots that compute.
        prefill_tokens: Prefill budget of one step, all rows together.
        period: The model runs in steps divisible by it.
        rows_kept: KV slots behind those, in which conversations rest.
        prefix_copies: Whether a prompt's prefix that another slot has is copied from there.
        calls: It is no decoder: a request is one run, which ends in the step it is admitted in.
    """

    rows_max: int
    prefill_tokens: int
    period: int = 1
    rows_kept: int = 0
    prefix_copies: bool = False
    calls: bool = False


def limits_of(model: Model) -> ModelLimits:
    """Of a model in a fleet."""
    return ModelLimits(
        model.rows_max,
        model.prefill_tokens_per_step,
        model.period,
        model.rows_kept,
        model.prefix_copies,
        model.kind != "decoder",
    )


class ModelQueue:
    """Queue, rows and slots of one model."""

    def __init__(self, index: int, limits: ModelLimits, priority_steps: int) -> None:
        self.index = index
        self.limits = limits
        self._priority_steps = priority_steps
        self._waiting: list[tuple[int, int, int, Request]] = []  # Place, ticket, sample.
        self._slots = Slots(limits.rows_max, limits.rows_kept, limits.prefix_copies)
        self._rows: list[Row] = []  # In order of admission.
        self._open: dict[int, int] = {}  # Ticket -> samples that have not ended.

    def restore(self, kept: Kept, request: Request) -> None:
        """Fill a slot as it was; slots come in the order of their last admissions."""
        row = self._slots.restore(kept, request)
        if row is not None:
            self._rows.append(row)

    def busy(self) -> bool:
        return bool(self._waiting or self._rows)

    def join(self, request: Request, admitted: int = 0, ended: int = 0) -> None:
        """Queue the samples of a request, but those that were admitted (and ended) before."""
        place = request.due + request.priority * self._priority_steps
        self._open[request.ticket] = request.samples - ended
        for sample in range(admitted, request.samples):
            entry = (place, request.ticket, sample, request)
            insort(self._waiting, entry, key=lambda entry: entry[:3])

    def drop(self, ticket: int, step: int) -> bool:
        """Take a ticket out, wherever it is; its conversation keeps what it computed."""
        for row in self._rows_of(ticket):
            self._release(row, step)
        return self._forget(ticket)

    def _forget(self, ticket: int) -> bool:
        self._waiting = [entry for entry in self._waiting if entry[1] != ticket]
        return self._open.pop(ticket, 0) > 0

    def _rows_of(self, ticket: int) -> list[Row]:
        return [row for row in self._rows if row.request.ticket == ticket]

    # -- a step ---------------------------------------------------------------------------------

    def plan(self) -> ModelPlan:
        """Admit, make room and copy, hand out the prefill budget, line up the decode rows."""
        decodes = [row for row in self._rows if row.out]
        new = self._admit()
        self._slots.compact()
        waiting: list[Row] = []
        if self.limits.prefix_copies:
            waiting = copy_prefixes(self._slots, self._rows)
        evicted, copies = self._slots.noted()
        admitted = tuple(self._admission(row) for row in new)
        chunks = self._prefill(waiting)
        planned = self._decodes(decodes)
        lengths = self._slots.lengths()
        for decode in planned:
            self._slots[decode.slot].tokens.append(decode.token)
        return ModelPlan(
            self.index, evicted, admitted, copies, tuple(chunks), tuple(planned), lengths
        )

    def _admit(self) -> list[Row]:
        new = []
        while self._waiting:
            _, _, sample, request = self._waiting[0]
            wanted = {entry[3].conversation: None for entry in self._waiting if entry[2] == 0}
            row = self._slots.admit(request, sample, wanted)
            if row is None:
                break  # Strictly in queue order: one that does not fit blocks those behind it.
            del self._waiting[0]
            self._rows.append(row)
            new.append(row)
        return new

    def _admission(self, row: Row) -> Admission:
        shared = self._slots[row.slot].shared
        if shared == row.filled or not self.limits.prefix_copies:
            shared = ALL_SHARED
        return Admission(row.request.ticket, row.slot, row.filled, row.sample, shared)

    def _prefill(self, waiting: Sequence[Row]) -> list[Chunk]:
        if self.limits.calls:
            return [Chunk(row.request.ticket, row.slot, 0, (), True) for row in self._rows]
        budget = self.limits.prefill_tokens
        chunks = []
        for row in self._rows:
            prompt, start = row.request.prompt, row.filled
            if row.is_whole() or any(row is other for other in waiting):
                continue
            size = _chunk_size(start, len(prompt) - start, budget)
            if size == 1 < len(prompt) and self.limits.prefix_copies:
                size = 0  # Others could not copy from it: it runs on the decode kernel.
            if size == 0:
                continue
            tokens = prompt[start : start + size]
            self._slots.fill(row, tokens)
            budget -= size
            chunks.append(
                Chunk(row.request.ticket, row.slot, start, tokens, row.is_whole(), row.sample)
            )
        return chunks

    def _decodes(self, rows: Sequence[Row]) -> list[Decode]:
        found = []
        for row in sorted(rows, key=lambda row: row.slot):
            past = len(self._slots[row.slot].tokens)
            found.append(Decode(row.request.ticket, row.slot, past, row.out[-1], row.sample))
        return found

    def book(self, number: int, outcome: Outcome, step: int) -> Ended | Left | None:
        """Book what the row of a slot got: its ticket may end by it, or the row alone."""
        row = self._slots[number].row
        if row is None:
            return None  # Another sample, that was not finite, has ended its ticket.
        ticket = row.request.ticket
        if outcome.token is None:
            for each in self._rows_of(ticket):
                self._release(each, step)
                self._slots.wipe(each)  # Poisoned KV must never be a later request's prefix.
            self._forget(ticket)
            return Ended(ticket, "invalid_output", "the model's output has a NaN or Inf")
        row.out.append(outcome.token)
        reason = _finish(row, outcome)
        if not reason:
            return None
        self._release(row, step)
        self._open[ticket] -= 1
        if self._open[ticket]:
            return Left(self.index, number, ticket)
        del self._open[ticket]
        return Ended(ticket, reason)

    def _release(self, row: Row, step: int) -> None:
        self._rows = [other for other in self._rows if other is not row]
        self._slots.release(row, step)

    def rows(self) -> int:
        return len(self._rows)

    def waiting(self) -> int:
        """Tickets with a sample that waits."""
        return len({entry[1]: None for entry in self._waiting})


def _finish(row: Row, outcome: Outcome) -> str:
    if outcome.stop or outcome.token in row.request.stop:
        return "stop"
    return "length" if len(row.out) == row.request.tokens_out_max else ""


def _chunk_size(filled: int, left: int, budget: int) -> int:
    """Prompt tokens to prefill now; 0: wait for the next step (rule 1).

    A chunk that would leave exactly one token is made one shorter, and only a prompt's first
    chunk may have one token: one-token runs use other kernels with other bits. A budget of at
    least `CHUNK_TOKENS_MIN` always makes progress for the first row in line.
    """
    size = min(left, budget)
    if left - size == 1:
        size -= 1
    return 0 if size == 1 and filled > 0 else max(size, 0)
