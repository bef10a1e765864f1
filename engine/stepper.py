"""Stepper: when the inference side may run its next step. Pure; planner plus rule 5.

The engine runs ahead only as far as no turn can still reach. Two facts bound it: the last grant
``(limit, applied)`` of the sequencer, and the requests that ended since, whose answers the
sequencer had not seen when it granted: an answer of step ``x`` wakes an agent at ``(x + 1, 0)``,
whose next request is due ``lookahead`` steps later. A later grant may be lower and replaces it.
"""

from collections.abc import Mapping
from dataclasses import replace

from lockstep.engine.plan import Booked, Outcome, Place, Request, StepPlan
from lockstep.engine.planner import Planner
from lockstep.engine.restored import UNKNOWN, Restored
from lockstep.engine.tag import INFINITE_STEP


class Stepper:
    """The engine's actor: grants, tickets and cancels in; steps to run out.

    Args:
        planner: What runs in a step.
        lookahead: The fleet's.
        on_arrival: Rule 11, live: a ticket or a cancel is due at the next step when it is taken,
            and no step waits for what an answer may bring.
    """

    def __init__(self, planner: Planner, lookahead: int, on_arrival: bool = False) -> None:
        self.planner = planner
        self._lookahead = lookahead
        self._on_arrival = on_arrival
        self._limit = 0  # Steps below it are granted.
        self._applied = 0  # Results of steps below it were known to the grant.
        self._ended_steps: list[int] = []  # Steps >= applied in which a request ended, rising.
        self._plan: StepPlan | None = None

    def restore(self, past: Restored, requests: Mapping[int, Request]) -> None:
        """Go on, from new, behind the last step of a record (`Planner.restore`).

        No grant is known and no answer outstanding: the sequencer has every recorded step, so
        the grant that it sends next knows all of them.
        """
        self.planner.restore(past, requests)
        offered = dict.fromkeys(past.offered)
        for asked in past.asked:
            if asked.ticket in offered:
                due = self._due(asked.due, asked.least)
                self.offer(replace(requests[asked.ticket], due=due))
        for cancel in past.cancels:
            if cancel.due == UNKNOWN:
                self.cancel(cancel.ticket, self._due(UNKNOWN, cancel.least))

    def _due(self, due: int, least: int) -> int:
        """A due step from the record; one that is not there is chosen again, or never comes."""
        if due != UNKNOWN:
            return due
        return least if self._on_arrival else INFINITE_STEP

    def offer(self, request: Request) -> None:
        """Take a ticket (published before the grant that covers it)."""
        if self._on_arrival:
            request = replace(request, due=max(request.due, self.planner.last_step + 1))
        self.planner.offer(request)

    def cancel(self, ticket: int, due: int) -> None:
        """Take a cancel (published before the grant that covers it)."""
        if self._on_arrival:
            due = max(due, self.planner.last_step + 1)
        self.planner.cancel(ticket, due)

    def grant(self, limit: int, applied: int) -> None:
        """Replace the grant: steps below ``limit``, computed with results of steps < applied."""
        self._limit = limit
        self._applied = applied
        self._ended_steps = [x for x in self._ended_steps if x >= applied]

    def runnable(self) -> int | None:
        """The step that may run now, or None: wait for a grant or a ticket."""
        step = self.planner.next_step()
        if step is None or step >= self._limit:
            return None
        if self._ended_steps and self._ended_steps[0] + 1 + self._lookahead <= step:
            return None
        return step

    def plan(self, step: int) -> StepPlan:
        """The plan of a runnable step."""
        self._plan = self.planner.plan(step)
        return self._plan

    def commit(self, outcomes: Mapping[Place, Outcome]) -> Booked:
        """Book the step's tokens; every request that ended in it, boundary first."""
        assert self._plan is not None
        ended, left = self.planner.commit(outcomes)
        ended = [*self._plan.ended, *ended]
        if ended and not self._on_arrival:
            self._ended_steps.append(self._plan.step)
        self._plan = None
        return Booked(ended, left)
