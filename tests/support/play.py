"""Play: a planner alone with slots that tell what they hold, for tests of KV reuse."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from simslab import SimSlab

from lockstep.engine.plan import Chunk, Outcome, Place, Request, StepPlan
from lockstep.engine.planner import ModelLimits, Planner

STEPS_MAX = 2_000  # After so many somebody starves.


class Play:
    """A planner whose plans are executed on played slots, which are looked at.

    Args:
        limits: Of the model.
        deaths: How many actions of a step are done by a process that then dies, before another one
            runs the step; None: none dies.
    """

    def __init__(self, limits: ModelLimits, deaths: Callable[[], int] | None = None) -> None:
        self.limits = limits
        self._deaths = deaths
        self.planner = Planner([limits], 8)
        self.slab = SimSlab()
        self.requests: dict[int, Request] = {}
        self.said: dict[tuple[int, int], list[int]] = {}
        self.ended: list[int] = []
        self.computed = 0

    def offer(self, request: Request) -> None:
        self.requests[request.ticket] = request
        self.planner.offer(request)

    def whose(self, ticket: int, sample: int) -> tuple[int, int]:
        return (ticket, sample) if sample else (self.requests[ticket].conversation[0], -9)

    def step(self, step: int) -> StepPlan:
        plan = self.planner.plan(step)
        outcomes: dict[Place, Outcome] = {}
        for part in plan.models:
            assert sum(len(c.tokens) for c in part.chunks) <= self.limits.prefill_tokens
            if self._deaths is not None:
                list(itertools.islice(self.slab.run(step, part, self.whose), self._deaths()))
            list(self.slab.run(step, part, self.whose))
            for row in (*part.chunks, *part.decodes):
                said = self.said.setdefault((row.ticket, row.sample), [])
                chunk = row if isinstance(row, Chunk) else None
                length = row.past + 1 if chunk is None else chunk.start + len(chunk.tokens)
                self.computed += 0 if chunk is None else len(chunk.tokens)
                tokens = [*self.requests[row.ticket].prompt, *said]
                whose = self.whose(row.ticket, row.sample)
                self.slab.check(0, row.slot, tokens[:length], whose)
                if chunk is None or chunk.last:
                    said.append(100 + (length + row.sample) % 3)
                    outcomes[0, row.slot] = Outcome(said[-1])
        booked = self.planner.commit(outcomes)
        self.ended += [end.ticket for end in (*plan.ended, *booked.ended)]
        return plan

    def run(self) -> int:
        """To the end; the steps that it took.

        Raises:
            AssertionError: a slot does not hold what it must, or somebody starves.
        """
        for steps in range(STEPS_MAX):
            step = self.planner.next_step()
            if step is None:
                return steps
            self.step(step)
        raise AssertionError("somebody starves")
