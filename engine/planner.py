"""Batch planner: which rows run in step ``s``, in which slots. Pure.

Everything that decides an order or a bit on the inference side is decided here: the queue,
admission, slots, prefix hits, evictions, prefill budget, decode rows (rule 1 of docs/time.md).
Tickets and the model's tokens go in, step plans come out; nothing here reads a clock, a free
size or an arrival order, so the same tickets give the same batches on any machine.
"""

import heapq
from collections.abc import Mapping, Sequence

from lockstep.engine.errors import LockstepBug
from lockstep.engine.model_queue import CHUNK_TOKENS_MIN as CHUNK_TOKENS_MIN
from lockstep.engine.model_queue import ModelLimits as ModelLimits
from lockstep.engine.model_queue import ModelQueue
from lockstep.engine.model_queue import limits_of as limits_of
from lockstep.engine.plan import CANCEL as CANCEL
from lockstep.engine.plan import DUE as DUE
from lockstep.engine.plan import Booked, Ended, Left, Outcome, Place, Request, StepPlan
from lockstep.engine.restored import ACTIVE, UNKNOWN, Restored


class Planner:
    """All models' queues on one step counter. One writer: the inference process (or a simulator).

    Order of use: `offer` and `cancel` as they come, then `plan(s)` and `commit` for each step.
    """

    def __init__(self, models: Sequence[ModelLimits], priority_steps: int) -> None:
        self._models = [ModelQueue(i, m, priority_steps) for i, m in enumerate(models)]
        self._offered: list[tuple[int, int, Request]] = []  # Heap by (due, ticket).
        self._cancels: list[tuple[int, int]] = []  # Heap by (due, ticket).
        self._owner: dict[int, ModelQueue] = {}  # Unanswered tickets that joined a queue.
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
        ended: dict[int, int] = {}  # Ticket -> its samples that have.
        for kept in past.kept:
            request = requests[kept.ticket]
            self._models[kept.model].restore(kept, request)
        for kept in (*past.kept, *past.left):
            if kept.ended != ACTIVE:
                ended[kept.ticket] = ended.get(kept.ticket, 0) + 1
        for queued in past.queued:
            request = requests[queued.ticket]
            over = ended.get(queued.ticket, 0)
            self._models[request.model].join(request, queued.admitted, over)
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
            if isinstance(end, Left):
                booked.left.append(end)
            elif end is not None:
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
