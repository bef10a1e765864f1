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
- the last grant in place of the highest ever sent (rule 8): a grant falls when an answer woke
  somebody, and there the engine has stopped by itself (rule 5), so no fleet of 900 tells them
  apart; the rule is the safe reading.
"""

from collections.abc import Callable
from typing import Any

import pytest
from mutants import sequencer_of
from simulator import simulate

from lockstep.engine import actions, keyed
from lockstep.engine import tag as tags
from lockstep.engine.effects import Turn
from lockstep.engine.ending import Ending
from lockstep.engine.errors import LockstepBug
from lockstep.engine.fleet import Fleet
from lockstep.engine.horizon import Horizon
from lockstep.engine.order import Repeated, Strict
from lockstep.engine.outside import Outside, What
from lockstep.engine.plan import Request
from lockstep.engine.running import Running
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.stepper import Stepper
from lockstep.engine.tag import INFINITE_STEP, Tag
from lockstep.engine.wire import StepReport

FLEETS = 120  # Within so many fleets each mutant must be red at least once.
PHYSICAL = 3


class AnyTag(Horizon):
    """Rule 4 gone: a tag is processed as soon as something is pending for it."""

    def may_process(self, tag: Tag, last: Tag) -> bool:
        return True


class TurnsNotAwaited(Horizon):
    """Rule 4 without its turns: a tag does not wait for a running turn that may come first."""

    def may_process(self, tag: Tag, last: Tag) -> bool:
        running, self._running = self._running, Running()
        try:
            return super().may_process(tag, last)
        finally:
            self._running = running


class EngineNotAwaited(Horizon):
    """Rule 4 without its engine: a tag does not wait for answers of steps that may come first."""

    def may_process(self, tag: Tag, last: Tag) -> bool:
        if self._order.live_arrival:
            return super().may_process(tag, last)
        lowest = self._running.lowest()
        return tag[0] <= self._world.fleet.steps_max and (lowest is None or lowest[0] > tag)


class NotStrictlyBehind(Horizon):
    """Rule 4 with `low(F) >= g`: two turns that take effect at one tag are applied apart."""

    def may_process(self, tag: Tag, last: Tag) -> bool:
        lowest = self._running.lowest()
        at_it = lowest is not None and lowest[0] == tag
        return super().may_process((tag[0], tag[1] - 1) if at_it else tag, last)


class IdleIsInfinite(Horizon):
    """Rule 4's `next` read as "infinite while the engine is idle with nothing due"."""

    def may_process(self, tag: Tag, last: Tag) -> bool:
        due = self._world.requests.smallest_due()
        if due is not None and due <= self._reports.last + 1:
            return super().may_process(tag, last)
        lowest = self._running.lowest()
        return tag[0] <= self._world.fleet.steps_max and (lowest is None or lowest[0] > tag)


class EffectOnArrival(Sequencer):
    """Rule 2 gone: F is the tag after the last processed one, whenever the turn really ends."""

    def turn_ended(self, agent: int, turn: Turn) -> None:
        self._running.end(agent)
        self._at(tags.next_microstep(self._last)).turns[agent] = turn


class AnswerOnArrival(Sequencer):
    """Rule 1's (s+1, 0) gone: an answer enters the mailbox when its report physically comes."""

    def step_reported(self, report: StepReport) -> None:
        self._reports.add(report)
        if report.answers:
            self._flush_steps(INFINITE_STEP)
            self._at(tags.next_microstep(self._last)).answers.extend(report.answers)


class FuelOverstated(Sequencer):
    """Rule 2's low(F) is not a lower bound: more fuel is published than the turn burns."""

    def fuel_published(self, agent: int, turn: int, fuel: int) -> None:
        super().fuel_published(agent, turn, fuel * 4)


class PendingForgotten(Horizon):
    """Rule 5's G without pending tags: what they will ask for is due at steps already granted."""

    def reach(self) -> int:
        lowest = self._running.lowest()
        return (INFINITE_STEP if lowest is None else lowest[0][0]) + self._order.lookahead


class RunningForgotten(Horizon):
    """Rule 5's G without running turns: their tickets come due at steps already granted."""

    def reach(self) -> int:
        first = self._agenda.first()
        return (INFINITE_STEP if first is None else first[0]) + self._order.lookahead


class GrantOneTooFar(Horizon):
    """Rule 5's G one step greater: the last ticket may miss its step by one."""

    def reach(self) -> int:
        return super().reach() + 1


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


class EndsWithTicketsOpen(Ending):
    """Rule 6 without "unanswered": the run closes when no tag is pending and no turn runs."""

    def quiet(self) -> bool:
        return not self._running and self._agenda.only_outside()


class OutsideWithoutGrant(Sequencer):
    """Rule 8's tag without the highest grant: the engine may have passed it already."""

    def outside(self, what: What, source: int, payload: bytes = b"", flags: int = 0) -> Outside:
        self.horizon._highest = 0
        return super().outside(what, source, payload, flags)


class OutsideOnArrival(Sequencer):
    """Rule 8's tag gone: an outside event takes effect where the run happens to be."""

    def outside(self, what: What, source: int, payload: bytes = b"", flags: int = 0) -> Outside:
        event = super().outside(what, source, payload, flags)
        self._at(tags.next_microstep(self._last)).outside.append(event)
        return event


class PendingOutsideHoldsTheEnd(Ending):
    """Rule 6 with outside events that happen to be here: a repeat has them from the start."""

    def quiet(self) -> bool:
        return super().quiet() and self._agenda.first() is None


class ForcedWhileTurnsRun(Sequencer):
    """Rule 9's "if nothing runs" gone: a full mailbox is overfilled while its owner may come."""

    def pump(self) -> list[actions.Action]:
        asked = self.world.requests.open_count()
        if self.world.post.parked and self._agenda.only_outside() and not asked:
            self._at(tags.next_microstep(self._last)).forced = True
        return super().pump()


class ParkedRetriesOnArrival(Sequencer):
    """Rule 9's retry tag gone: parked senders try again whenever a turn physically ends."""

    def turn_ended(self, agent: int, turn: Turn) -> None:
        super().turn_ended(agent, turn)
        if self.world.post.parked:
            self._at(tags.next_microstep(self._last)).retry = True


class ArrivalEffectsForgotten(Sequencer):
    """Rule 11 without its F: a repeat computes them from fuel."""

    def __init__(self, fleet: Fleet, inputs: Any, recorded: Any = None) -> None:
        super().__init__(fleet, inputs, recorded)
        if isinstance(self._order, Repeated):
            self._order.low = Strict(fleet).low  # type: ignore[method-assign]


class ArrivalDuesForgotten(Sequencer):
    """Rule 11 without its dues: a repeat has every ticket due where it took effect."""

    def __init__(self, fleet: Fleet, inputs: Any, recorded: Any = None) -> None:
        super().__init__(fleet, inputs, recorded)
        if isinstance(self._order, Repeated):
            self._order.due = Strict(fleet).due  # type: ignore[method-assign]


class ArrivalCancelsForgotten(Sequencer):
    """Rule 11 without its cancels: a repeat has them due where they took effect."""

    def __init__(self, fleet: Fleet, inputs: Any, recorded: Any = None) -> None:
        super().__init__(fleet, inputs, recorded)
        if isinstance(self._order, Repeated):
            self._order.cancel = Strict(fleet).cancel  # type: ignore[method-assign]


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


PARTS: list[type[Horizon] | type[Ending]] = [
    AnyTag,
    TurnsNotAwaited,
    EngineNotAwaited,
    NotStrictlyBehind,
    IdleIsInfinite,
    PendingForgotten,
    RunningForgotten,
    GrantOneTooFar,
    EndsWithTicketsOpen,
    PendingOutsideHoldsTheEnd,
]
SEQUENCERS = [
    EffectOnArrival,
    AnswerOnArrival,
    FuelOverstated,
    ClaimsResultsNotApplied,
    GrantBeforeTickets,
    StepsHashedOnArrival,
    LimitHashesWhatWasReported,
    OutsideWithoutGrant,
    OutsideOnArrival,
    ForcedWhileTurnsRun,
    ParkedRetriesOnArrival,
    pytest.param(ArrivalEffectsForgotten, marks=pytest.mark.interpreted),
    pytest.param(ArrivalDuesForgotten, marks=pytest.mark.interpreted),
    pytest.param(ArrivalCancelsForgotten, marks=pytest.mark.interpreted),
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
            run = simulate(seed, physical, first, sequencer_type=sequencer, stepper_type=stepper)
        except (LockstepBug, AssertionError):
            return True
        first = first or run
        if (run.entries, run.outputs) != (first.entries, first.outputs):
            return True
    return False


def turns_red(red: Callable[[int], bool]) -> bool:
    return any(red(seed) for seed in range(FLEETS))


@pytest.mark.parametrize("mutant", SEQUENCERS)
def test_a_sequencer_with_a_broken_rule_turns_red(mutant: type[Sequencer]) -> None:
    assert turns_red(lambda seed: is_red(seed, mutant)), mutant.__doc__


@pytest.mark.parametrize("mutant", PARTS)
def test_a_horizon_or_ending_with_a_broken_rule_turns_red(
    mutant: type[Horizon] | type[Ending],
) -> None:
    assert turns_red(lambda seed: is_red(seed, sequencer_of(mutant))), mutant.__doc__


@pytest.mark.parametrize("mutant", STEPPERS)
def test_a_stepper_with_a_broken_rule_turns_red(mutant: type[Stepper]) -> None:
    assert turns_red(lambda seed: is_red(seed, stepper=mutant)), mutant.__doc__


@pytest.mark.interpreted
def test_tickets_numbered_in_the_order_of_arrival_turn_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Rule 3's hash gone: turns are numbered in the dict's order, that of their ends.
    monkeypatch.setattr(keyed, "draws", lambda stream, a, b, turns: list(range(len(turns))))
    assert turns_red(is_red)


def test_the_rules_themselves_stay_green_where_every_mutant_is_tried() -> None:
    assert not turns_red(is_red)
