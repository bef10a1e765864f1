"""Mutants of the rules: each breaks one "must" of docs/time.md, and the simulator turns red.

Red is: two physical timings of one fleet give two histories, or the engine notices that it was
reached too late (`LockstepBug`), or the run hangs. A mutant that stays green would mean that
its rule is either not needed or not tested.

Left out, because under them a fleet still has one history (they are other rules, not races):

- fuel ignored by rule 2 (every effect at the next microstep): F is still a function of logical
  time only. The race is F chosen when the turn ends; that mutant is here.
- `Mailbox.take` without its sort: events are put while tags are processed, so the order of
  putting is logical as well. Its unit test holds the order of rule 2; the race is an event that
  enters a mailbox when it physically comes, and that mutant is here.
- agents of a tag ordered by index instead of by hash: unfair, but one history.
- a queue in order of arrival among tickets that are due: the ring is FIFO and tickets are
  published by number, so arrival is ticket order. The race is joining before the due step.
- no `credit`: without outside events rule 8 only bounds how far a grant reaches.
"""

import itertools
from collections.abc import Callable

import pytest
from simulator import Simulation

from lockstep.engine import actions, keyed
from lockstep.engine import tag as tags
from lockstep.engine.effects import Turn
from lockstep.engine.errors import LockstepBug
from lockstep.engine.plan import Request
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.stepper import Stepper
from lockstep.engine.tag import INFINITE_STEP, Tag
from lockstep.engine.wire import StepReport

FLEETS = 120  # Within so many fleets each mutant must be red at least once.
PHYSICAL = 3


class AnyTag(Sequencer):
    """Rule 4 gone: a tag is processed as soon as something is pending for it."""

    def _may_process(self, tag: Tag) -> bool:
        return True


class TurnsNotAwaited(Sequencer):
    """Rule 4 without its turns: a tag does not wait for a running turn that may come first."""

    def _may_process(self, tag: Tag) -> bool:
        running, self._running = self._running, {}
        try:
            return super()._may_process(tag)
        finally:
            self._running = running


class EngineNotAwaited(Sequencer):
    """Rule 4 without its engine: a tag does not wait for answers of steps that may come first."""

    def _may_process(self, tag: Tag) -> bool:
        if tag[0] > self._fleet.steps_max:
            return False
        return all(low > tag for _, low in self._running.values())


class NotStrictlyBehind(Sequencer):
    """Rule 4 with `low(F) >= g`: two turns that take effect at one tag are applied apart."""

    def _may_process(self, tag: Tag) -> bool:
        if (self._next_step() + 1, 0) <= tag or tag[0] > self._fleet.steps_max:
            return False
        return all(low >= tag for _, low in self._running.values())


class IdleIsInfinite(Sequencer):
    """Rule 4's `next` read as "infinite while the engine is idle with nothing due"."""

    def _may_process(self, tag: Tag) -> bool:
        due = self.world.requests.smallest_due()
        idle = due is None or due > self._reported + 1
        following = INFINITE_STEP if idle else self._reported + 1
        if (following + 1, 0) <= tag or tag[0] > self._fleet.steps_max:
            return False
        return all(low > tag for _, low in self._running.values())


class EffectOnArrival(Sequencer):
    """Rule 2 gone: F is the tag after the last processed one, whenever the turn really ends."""

    def turn_ended(self, agent: int, turn: Turn) -> None:
        del self._running[agent]
        self._at(tags.next_microstep(self._last)).turns[agent] = turn


class AnswerOnArrival(Sequencer):
    """Rule 1's (s+1, 0) gone: an answer enters the mailbox when its report physically comes."""

    def step_reported(self, report: StepReport) -> None:
        self._reported = report.step
        self._reports.append(report)
        for ticket, token in report.tokens:
            self._tokens.setdefault(ticket, []).append(token)
        if report.answers:
            self._flush_steps(INFINITE_STEP)
            self._at(tags.next_microstep(self._last)).answers.extend(report.answers)


class FuelOverstated(Sequencer):
    """Rule 2's low(F) is not a lower bound: more fuel is published than the turn burns."""

    def fuel_published(self, agent: int, turn: int, fuel: int) -> None:
        super().fuel_published(agent, turn, fuel * 4)


class PendingForgotten(Sequencer):
    """Rule 5's G without pending tags: what they will ask for is due at steps already granted."""

    def _horizon(self) -> int:
        lows = [low[0] for _, low in self._running.values()]
        return min(lows, default=INFINITE_STEP) + self._schedule.lookahead


class RunningForgotten(Sequencer):
    """Rule 5's G without running turns: their tickets come due at steps already granted."""

    def _horizon(self) -> int:
        first = self._heap[0][0] if self._heap else INFINITE_STEP
        return first + self._schedule.lookahead


class GrantOneTooFar(Sequencer):
    """Rule 5's G one step greater: the last ticket may miss its step by one."""

    def _horizon(self) -> int:
        return super()._horizon() + 1


class ClaimsResultsNotApplied(Sequencer):
    """Rule 5's c too great: the engine forgets ends whose answers the grant did not know."""

    def _grant(self) -> None:
        super()._grant()
        for number, action in enumerate(self.world.actions):
            if isinstance(action, actions.Grant):
                self.world.actions[number] = action._replace(applied=action.applied + 1000)


class GrantBeforeTickets(Sequencer):
    """Rule 5's order gone: a grant is published before the tickets that it covers."""

    def pump(self) -> list[actions.Action]:
        done = super().pump()
        return sorted(done, key=lambda action: not isinstance(action, actions.Grant))


class StepsHashedOnArrival(Sequencer):
    """Rule 7 gone: a step is hashed when its report comes, not after the tags up to it."""

    def step_reported(self, report: StepReport) -> None:
        super().step_reported(report)
        self._flush_steps(INFINITE_STEP)


class LimitHashesWhatWasReported(Sequencer):
    """A run stopped by a limit hashes the steps that happen to be reported (rule 6)."""

    def _end(self, state: str, reason: str) -> None:
        self._flush_steps(INFINITE_STEP)
        super()._end(state, reason)


class EndsWithTicketsOpen(Sequencer):
    """Rule 6 without "unanswered": the run closes when no tag is pending and no turn runs."""

    def _next_step(self) -> int:
        return INFINITE_STEP if not self._heap and not self._running else super()._next_step()


class FreeToHorizon(Stepper):
    """Rule 5 without ended requests: the engine runs freely to the published horizon."""

    def runnable(self) -> int | None:
        self._ended_steps = []
        return super().runnable()


class GrantsNeverFall(Stepper):
    """Rule 5's "replaces it" gone: a lower grant does not take back a higher one."""

    def grant(self, limit: int, applied: int) -> None:
        super().grant(max(limit, self._limit), applied)


class JoinsWhenDrained(Stepper):
    """Rule 1's due step gone: a ticket joins the queue at the step after it was drained."""

    def offer(self, request: Request) -> None:
        fields = {name: getattr(request, name) for name in request.__slots__}
        super().offer(Request(**{**fields, "due": self.planner.last_step + 1}))


class CancelsWhenDrained(Stepper):
    """Rule 12's due step gone: a cancel hits the request wherever it is when it is drained."""

    def cancel(self, ticket: int, due: int) -> None:
        super().cancel(ticket, self.planner.last_step + 1)


class IdleDoesNotJump(Stepper):
    """Rule 6's jump gone: an engine with a ticket for later runs empty steps until then."""

    def runnable(self) -> int | None:
        if super().runnable() is None:
            return None
        step = self.planner.last_step + 1
        return step if step < self._limit else None


SEQUENCERS = [
    AnyTag,
    TurnsNotAwaited,
    EngineNotAwaited,
    NotStrictlyBehind,
    IdleIsInfinite,
    EffectOnArrival,
    AnswerOnArrival,
    FuelOverstated,
    PendingForgotten,
    RunningForgotten,
    GrantOneTooFar,
    ClaimsResultsNotApplied,
    GrantBeforeTickets,
    StepsHashedOnArrival,
    LimitHashesWhatWasReported,
    EndsWithTicketsOpen,
]
STEPPERS = [
    FreeToHorizon,
    GrantsNeverFall,
    JoinsWhenDrained,
    CancelsWhenDrained,
    IdleDoesNotJump,
]


def is_red(
    seed: int, sequencer: type[Sequencer] = Sequencer, stepper: type[Stepper] = Stepper
) -> bool:
    """Whether the fleet has more than one history, or the engine or simulator objects."""
    first = None
    for physical in range(PHYSICAL):
        try:
            run = Simulation(seed, physical, sequencer, stepper).run()
        except (LockstepBug, AssertionError):
            return True
        first = first or run
        if run != first:
            return True
    return False


def turns_red(red: Callable[[int], bool]) -> bool:
    return any(red(seed) for seed in range(FLEETS))


@pytest.mark.parametrize("mutant", SEQUENCERS)
def test_a_sequencer_with_a_broken_rule_turns_red(mutant: type[Sequencer]) -> None:
    assert turns_red(lambda seed: is_red(seed, mutant)), mutant.__doc__


@pytest.mark.parametrize("mutant", STEPPERS)
def test_a_stepper_with_a_broken_rule_turns_red(mutant: type[Stepper]) -> None:
    assert turns_red(lambda seed: is_red(seed, stepper=mutant)), mutant.__doc__


def test_tickets_numbered_in_the_order_of_arrival_turn_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Rule 3's hash gone: `sorted` asks for its keys in the dict's order, that of the turns' ends.
    counter = itertools.count()
    monkeypatch.setattr(keyed, "draw", lambda *_: next(counter))
    assert turns_red(is_red)


def test_the_rules_themselves_stay_green_where_every_mutant_is_tried() -> None:
    assert not turns_red(is_red)
