"""Batch planner: which rows run in step ``s``, in which slots. Pure.

Everything that decides an order or a bit on the inference side is decided here: the queue,
admission, slots, prefix hits, evictions, prefill budget, decode rows (rule 1 of docs/time.md).
Tickets and the model's tokens go in, step plans come out; nothing here reads a clock, a free
size or an arrival order, so the same tickets give the same batches on any machine.
"""

import heapq
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lockstep.engine.errors import LockstepBug
from lockstep.engine.plan import CANCEL as CANCEL
from lockstep.engine.plan import DUE as DUE
from lockstep.engine.plan import (
    Admission,
    Booked,
    Chunk,
    Decode,
    Ended,
    ModelPlan,
    Outcome,
    Place,
    Request,
    StepPlan,
)
from lockstep.engine.restored import ACTIVE, UNKNOWN, Kept, Restored

CHUNK_TOKENS_MIN = 3  # Smallest budget with which every prompt gets on (see `_chunk_size`).


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What the planner must know of one model.

    Attributes:
        rows_max: KV slots.
        prefill_tokens: Prefill budget of one step, all rows together.
        period: The model runs in steps divisible by it.
    """

    rows_max: int
    prefill_tokens: int
    period: int = 1


@dataclass(slots=True)
class _Slot:
    tokens: list[int] = field(default_factory=list)  # What the KV holds, by position.
    conversation: tuple[int, str] | None = None  # Whose it is; None: the slot is free.
    row: "_Row | None" = None  # The active request.
    last_used: tuple[int, int] = (-1, 0)  # (step, ticket) of the last request that ended here.


@dataclass(slots=True)
class _Row:
    request: Request
    slot: int
    filled: int  # Prompt tokens in the KV.
    out: list[int] = field(default_factory=list)


class _ModelQueue:
    """Queue and slots of one model."""

    def __init__(self, index: int, limits: ModelLimits, priority_steps: int) -> None:
        self.index = index
        self.limits = limits
        self._priority_steps = priority_steps
        self._waiting: list[tuple[int, int, Request]] = []
        self._slots = [_Slot() for _ in range(limits.rows_max)]
        self._rows: dict[int, _Row] = {}  # By ticket, in order of admission.

    def restore(self, kept: Kept, request: Request) -> None:
        """Fill a slot as it was; slots come in the order of their last admissions."""
        slot = self._slots[kept.slot]
        # The last token of an answer is fed with the next step, so it is not there yet.
        slot.tokens = [*request.prompt[: kept.filled], *kept.tokens[:-1]]
        slot.conversation = request.conversation
        if kept.ended == ACTIVE:
            row = _Row(request, kept.slot, kept.filled, list(kept.tokens))
            slot.row = self._rows[kept.ticket] = row
        else:
            slot.last_used = (kept.ended, kept.ticket)

    def busy(self) -> bool:
        return bool(self._waiting or self._rows)

    def join(self, request: Request) -> None:
        place = request.due + request.priority * self._priority_steps
        insort(self._waiting, (place, request.ticket, request), key=lambda entry: entry[:2])

    def drop(self, ticket: int, step: int) -> bool:
        """Take a ticket out, wherever it is; its slot keeps what it computed."""
        if ticket in self._rows:
            self._release(ticket, step)
            return True
        before = len(self._waiting)
        self._waiting = [entry for entry in self._waiting if entry[1] != ticket]
        return len(self._waiting) < before

    def plan(self) -> ModelPlan:
        """Admit, hand out the prefill budget, line up the decode rows."""
        decodes = [row for row in self._rows.values() if row.out]
        evicted, admitted = self._admit()
        chunks = self._prefill()
        planned = []
        for row in sorted(decodes, key=lambda row: row.slot):
            slot = self._slots[row.slot]
            planned.append(Decode(row.request.ticket, row.slot, len(slot.tokens), row.out[-1]))
        lengths = tuple(len(slot.tokens) for slot in self._slots)
        for decode in planned:
            self._slots[decode.slot].tokens.append(decode.token)
        return ModelPlan(
            self.index,
            evicted=tuple(evicted),
            admitted=tuple(admitted),
            chunks=tuple(chunks),
            decodes=tuple(planned),
            lengths=lengths,
        )

    def _admit(self) -> tuple[list[int], list[Admission]]:
        evicted, admitted = [], []
        while self._waiting:
            request = self._waiting[0][2]
            number = self._choose_slot(request)
            if number is None:
                break  # Strictly in queue order: one that does not fit blocks those behind it.
            del self._waiting[0]
            slot = self._slots[number]
            hit = 0
            if slot.conversation == request.conversation:
                hit = _prefix_hit(slot.tokens, request.prompt)
            elif slot.conversation is not None:
                evicted.append(number)
            del slot.tokens[hit:]
            slot.conversation = request.conversation
            slot.row = self._rows[request.ticket] = _Row(request, number, hit)
            admitted.append(Admission(request.ticket, number, hit))
        return evicted, admitted

    def _choose_slot(self, request: Request) -> int | None:
        idle = [n for n, slot in enumerate(self._slots) if slot.row is None]
        for n in idle:
            if self._slots[n].conversation == request.conversation:
                return n
        for n in idle:
            if self._slots[n].conversation is None:
                return n
        if not idle:
            return None
        waiting = frozenset(entry[2].conversation for entry in self._waiting)
        unwanted = [n for n in idle if self._slots[n].conversation not in waiting]
        return min(unwanted or idle, key=lambda n: (self._slots[n].last_used, n))

    def _prefill(self) -> list[Chunk]:
        budget = self.limits.prefill_tokens
        chunks = []
        for row in self._rows.values():
            prompt = row.request.prompt
            if row.filled == len(prompt):
                continue
            size = _chunk_size(row.filled, len(prompt) - row.filled, budget)
            if size == 0:
                continue
            tokens = prompt[row.filled : row.filled + size]
            last = row.filled + size == len(prompt)
            chunks.append(Chunk(row.request.ticket, row.slot, row.filled, tokens, last))
            self._slots[row.slot].tokens.extend(tokens)
            row.filled += size
            budget -= size
        return chunks

    def book(self, slot: int, outcome: Outcome, step: int) -> Ended | None:
        """Book what the row of a slot got; it may end its request."""
        row = self._slots[slot].row
        assert row is not None, f"slot {slot} has no row"
        ticket, token = row.request.ticket, outcome.token
        if token is None:
            self._release(ticket, step)
            # Poisoned KV must never be a later request's prefix.
            self._slots[row.slot] = _Slot()
            return Ended(ticket, "invalid_output", "the model's output has a NaN or Inf")
        row.out.append(token)
        reason = ""
        if outcome.stop or token in row.request.stop:
            reason = "stop"
        elif len(row.out) == row.request.tokens_out_max:
            reason = "length"
        if not reason:
            return None
        self._release(ticket, step)
        return Ended(ticket, reason)

    def _release(self, ticket: int, step: int) -> None:
        slot = self._slots[self._rows.pop(ticket).slot]
        slot.row = None
        slot.last_used = (step, ticket)

    def rows(self) -> int:
        return len(self._rows)

    def waiting(self) -> int:
        return len(self._waiting)


class Planner:
    """All models' queues on one step counter. One writer: the inference process (or a simulator).

    Order of use: `offer` and `cancel` as they come, then `plan(s)` and `commit` for each step.
    """

    def __init__(self, models: Sequence[ModelLimits], priority_steps: int) -> None:
        self._models = [_ModelQueue(i, m, priority_steps) for i, m in enumerate(models)]
        self._offered: list[tuple[int, int, Request]] = []  # Heap by (due, ticket).
        self._cancels: list[tuple[int, int]] = []  # Heap by (due, ticket).
        self._owner: dict[int, _ModelQueue] = {}  # Unanswered tickets that joined a queue.
        # Heap of (step, ticket, steps) of those with a time-out; answered ones linger.
        self._timeouts: list[tuple[int, int, int]] = []
        self.last_step = -1

    def offer(self, request: Request) -> None:
        """Take a ticket. It joins its queue at its due step.

        Raises:
            LockstepBug: the step it is due at was executed already (a rule was broken).
        """
        if request.due <= self.last_step:
            raise LockstepBug(
                f"ticket {request.ticket} is due at step {request.due}, "
                f"but step {self.last_step} was executed already"
            )
        heapq.heappush(self._offered, (request.due, request.ticket, request))

    def cancel(self, ticket: int, due: int) -> None:
        """Cancel a ticket at the boundary before step ``due``; void if it has ended by then."""
        if due <= self.last_step:
            raise LockstepBug(f"cancel of ticket {ticket} is due at executed step {due}")
        heapq.heappush(self._cancels, (due, ticket))

    def restore(self, past: Restored, requests: Mapping[int, Request]) -> None:
        """Become, from new, the planner that planned the steps of a record.

        What it would plan next is what that one would have. Tickets of ``past.offered`` and
        cancels whose step nobody has chosen yet are the caller's to hand in again.

        Args:
            past: What the record says.
            requests: By ticket, each that ``past.asked`` names.
        """
        self.last_step = past.last_step
        for kept in past.kept:
            request = requests[kept.ticket]
            self._models[request.model].restore(kept, request)
            if kept.ended == ACTIVE:
                self._own(request)
        for ticket in past.queued:
            request = requests[ticket]
            self._models[request.model].join(request)
            self._own(request)
        for cancel in past.cancels:
            if cancel.due != UNKNOWN:
                self.cancel(cancel.ticket, cancel.due)

    def next_step(self) -> int | None:
        """The step that would run next (rule 6: an idle engine jumps), None without work."""
        if any(model.busy() for model in self._models):
            return self.last_step + 1
        if self._offered:
            return max(self.last_step + 1, self._offered[0][0])
        return None

    def plan(self, step: int) -> StepPlan:
        """Decide everything at the boundary before ``step`` and in it."""
        self._taken: list[tuple[int, int, int]] = []
        ended = self._join(step)
        ended += self._cancel(step)
        ended += self._time_out(step)
        models = tuple(m.plan() for m in self._models if step % m.limits.period == 0)
        self.last_step = step
        return StepPlan(step, tuple(ended), models, tuple(self._taken))

    def commit(self, outcomes: Mapping[Place, Outcome]) -> Booked:
        """Book what the models answered for the last plan.

        Returns:
            What came of it, in the order of ``outcomes``.
        """
        booked = Booked([], [])
        for (model, slot), outcome in outcomes.items():
            end = self._models[model].book(slot, outcome, self.last_step)
            if end is not None:
                del self._owner[end.ticket]
                booked.ended.append(end)
        return booked

    def _join(self, step: int) -> list[Ended]:
        ended = []
        while self._offered and self._offered[0][0] <= step:
            request = heapq.heappop(self._offered)[2]
            self._taken.append((DUE, request.ticket, request.due))
            if request.refusal:
                ended.append(Ended(request.ticket, "refused", request.refusal))
                continue
            self._models[request.model].join(request)
            self._own(request)
        return ended

    def _own(self, request: Request) -> None:
        self._owner[request.ticket] = self._models[request.model]
        if request.timeout_steps:
            self._watch(request)

    def _watch(self, request: Request) -> None:
        if len(self._timeouts) > 2 * len(self._owner):  # Mostly answered ones: drop those.
            self._timeouts = [entry for entry in self._timeouts if entry[1] in self._owner]
            heapq.heapify(self._timeouts)
        at = request.due + request.timeout_steps
        heapq.heappush(self._timeouts, (at, request.ticket, request.timeout_steps))

    def _cancel(self, step: int) -> list[Ended]:
        ended = []
        while self._cancels and self._cancels[0][0] <= step:
            due, ticket = heapq.heappop(self._cancels)
            self._taken.append((CANCEL, ticket, due))
            if self._end(ticket, step):
                ended.append(Ended(ticket, "cancelled", "cancelled"))
        return ended

    def _time_out(self, step: int) -> list[Ended]:
        late = []
        while self._timeouts and self._timeouts[0][0] <= step:
            _, ticket, steps = heapq.heappop(self._timeouts)
            if self._end(ticket, step):
                late.append((ticket, steps))
        text = "no answer {} steps after it was due"
        return [Ended(ticket, "timeout", text.format(steps)) for ticket, steps in sorted(late)]

    def _end(self, ticket: int, step: int) -> bool:
        model = self._owner.pop(ticket, None)
        return model is not None and model.drop(ticket, step)

    def load(self) -> tuple[int, int]:
        """(active rows, waiting tickets): for display."""
        return sum(m.rows() for m in self._models), sum(m.waiting() for m in self._models)


def _prefix_hit(kept: Sequence[int], prompt: Sequence[int]) -> int:
    """Prompt tokens that need no prefill: at most ``length - 2``, compared by token ids.

    Two are left, because a chunk of one token after a hit would run on the decode kernel, whose
    KV is not bit-equal to prefill's.
    """
    hit = 0
    limit = max(0, len(prompt) - 2)
    for old, new in zip(kept, prompt, strict=False):
        if hit == limit or old != new:
            break
        hit += 1
    return hit


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
