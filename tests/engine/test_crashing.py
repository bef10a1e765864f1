"""Accidents in simulated runs: whoever is lost, the history is that of the undisturbed run.

And the mutants of the rules of recovery: each breaks one, and the simulator turns red.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from crashing import survive
from mutants import sequencer_of

from lockstep.engine import actions
from lockstep.engine.errors import LockstepError
from lockstep.engine.horizon import Horizon
from lockstep.engine.order import Repeated
from lockstep.engine.outside import Arrivals, Outside, What
from lockstep.engine.replay import Replay
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.tag import Tag

FLEETS = 300
FLEETS_PER_TEST = 25
FLEETS_NIGHTLY = 10_000
MUTANT_FLEETS = 150  # Within so many fleets each mutant must be red at least once.


def check(seed: int, physical: int = 1) -> list[str]:
    try:
        return survive(seed, physical)
    except BaseException as error:
        error.add_note(f"repeat: python tests/support/crashing.py {seed} {physical}")
        raise


@pytest.mark.parametrize("first", range(0, FLEETS, FLEETS_PER_TEST))
def test_accidents_leave_the_history_as_it_would_have_been(first: int) -> None:
    accidents: Counter[str] = Counter()
    for seed in range(first, first + FLEETS_PER_TEST):
        accidents.update(check(seed))
    # A simulator in which nothing is lost any more would keep every test here green.
    assert min(accidents[what] for what in ("all", "agent", "engine")) > 5


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(0, FLEETS_NIGHTLY, 500))
def test_accidents_in_many_more_fleets_leave_the_history_as_it_would_have_been(
    first: int,
) -> None:
    for seed in range(first, first + 500):
        for physical in (2, 3):
            check(seed, physical)


class ChoicesForgotten(Sequencer):
    """Rule 11: what was chosen for a turn whose effect was lost is chosen anew."""

    def go_live(self, floor: Tag, live: bool = True) -> list[actions.Action]:
        if isinstance(self._order, Repeated):
            self._order._effects.clear()
        return super().go_live(floor, live)


class ChoicesNotAwaited(Horizon):
    """Rule 11: live, a tag does not wait for a turn that has its place in the record before it."""

    def may_process(self, tag: Tag, last: Tag) -> bool:
        if not self._order.live_arrival:
            return super().may_process(tag, last)
        idle = not self._running and not self._world.requests.open_count()
        return tag[0] <= max(self._reports.last + 1, last[0]) or idle


class ChoicesKeptAgain(Sequencer):
    """Rule 11: what the engine had chosen in a lost step goes into the journal a second time."""

    def go_live(self, floor: Tag, live: bool = True) -> list[actions.Action]:
        if isinstance(self._order, Repeated):
            self._order._steps.clear()
        return super().go_live(floor, live)


class OutsideDropped(Sequencer):
    """Rule 8: what was kept and has not taken effect yet is forgotten."""

    def go_live(self, floor: Tag, live: bool = True) -> list[actions.Action]:
        self._agenda._outside.clear()
        return super().go_live(floor, live)


class OutsideNumbersAgain(Sequencer):
    """Rule 8: outside events are counted from those that took effect."""

    def go_live(self, floor: Tag, live: bool = True) -> list[actions.Action]:
        self._arrivals.count = max(0, self._arrivals.count - len(self._agenda._outside))
        return super().go_live(floor, live)


class Overtaking(Arrivals):
    """Rule 8: an outside event comes before one that arrived earlier."""

    def number(self, tag: Tag, what: What, source: int, flags: int, payload: bytes) -> Outside:
        event = super().number(tag, what, source, flags, payload)
        return event._replace(tag=tag)


class OutsideOvertakes(Sequencer):
    __doc__ = Overtaking.__doc__

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._arrivals.__class__ = Overtaking


class LowestNotKnown(Sequencer):
    """Rule 4: a turn without a recorded effect holds the record back that went on without it."""

    def not_before(self, agent: int, tag: Tag) -> None:
        pass


class StepsNotClosed(Sequencer):
    """Rule 7: steps at the end of the record are left for later, and written twice."""

    def go_live(self, floor: Tag, live: bool = True) -> list[actions.Action]:
        return super().go_live((floor[0] - 1, floor[1]), live)


class RunningLost(Replay):
    """A turn that was running is not run again."""

    def run(self, until: Tag | None = None) -> Iterator[actions.Action]:
        yield from super().run(until)
        self.running = self.running[1:]


class TicketsTwice(Replay):
    """A ticket of the record is issued again."""

    def run(self, until: Tag | None = None) -> Iterator[actions.Action]:
        yield from super().run(until)
        self.beyond = [*self.open_tickets(), *self.beyond]


class CallsForgotten(Replay):
    """A tool call without an answer is not made again."""

    def open_calls(self) -> list[actions.CallTool]:
        return []


class BeyondLost(Replay):
    """What follows from the record and is not in it is not done."""

    def run(self, until: Tag | None = None) -> Iterator[actions.Action]:
        yield from super().run(until)
        self.beyond = []


SEQUENCERS = [
    ChoicesForgotten,
    pytest.param(sequencer_of(ChoicesNotAwaited), id="ChoicesNotAwaited"),
    ChoicesKeptAgain,
    OutsideDropped,
    OutsideNumbersAgain,
    pytest.param(OutsideOvertakes, marks=pytest.mark.interpreted),
    LowestNotKnown,
    StepsNotClosed,
]
REPLAYS = [RunningLost, TicketsTwice, CallsForgotten, BeyondLost]


def turns_red(**mutant: Any) -> bool:
    return any(is_red(seed, **mutant) for seed in range(MUTANT_FLEETS))


def is_red(seed: int, **mutant: Any) -> bool:
    try:
        survive(seed, 1, **mutant)
    except (AssertionError, LockstepError):
        return True
    return False


@pytest.mark.parametrize("mutant", SEQUENCERS)
def test_a_sequencer_that_breaks_a_rule_of_recovery_turns_red(mutant: type[Sequencer]) -> None:
    assert turns_red(sequencer_type=mutant), mutant.__doc__


@pytest.mark.parametrize("mutant", REPLAYS)
def test_a_replay_that_breaks_a_rule_of_recovery_turns_red(mutant: type[Replay]) -> None:
    assert turns_red(replay_type=mutant), mutant.__doc__
