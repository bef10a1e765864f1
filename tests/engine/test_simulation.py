"""Random fleets under random physical timings: one history each, and its promises kept."""

from collections import Counter

import pytest
from audit import Audit, difference, records, slots
from fleetmaker import make_fleet
from simulator import Run, one_history, simulate

from lockstep.engine.record import Kind
from lockstep.engine.wire import FromEngine

FLEETS = 300
FLEETS_PER_TEST = 25
PHYSICAL = 3
FLEETS_NIGHTLY = 10_000


@pytest.mark.parametrize("first", range(0, FLEETS, FLEETS_PER_TEST))
def test_every_physical_timing_of_a_fleet_gives_one_history(first: int) -> None:
    for seed in range(first, first + FLEETS_PER_TEST):
        check_seed(seed)


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(FLEETS, FLEETS_NIGHTLY, 500))
def test_every_physical_timing_of_many_more_fleets_gives_one_history(first: int) -> None:
    for seed in range(first, min(first + 500, FLEETS_NIGHTLY)):
        check_seed(seed)


def test_simulated_fleets_reach_every_end_and_every_kind_of_history() -> None:
    # A simulator that stops trying something would keep every other test here green.
    ends: Counter[str] = Counter()
    kinds: Counter[int] = Counter()
    statuses: Counter[int] = Counter()
    for seed in range(200):
        run = simulate(seed, 0)
        ends[run.reason.split(" ")[0] or run.state] += 1
        for record in records(run):
            kinds[record.kind] += 1
            if record.kind == Kind.STEP:
                statuses.update(slot[4] for slot in slots(record) if slot[0] == FromEngine.END)
    assert ends.keys() == {
        *("finished", "stalled", "turns_max", "steps_max", "messages_max"),
        *("agents", "by"),  # ... wait for room with one another; ... a person.
    }
    assert kinds.keys() == {
        *(Kind.TAG, Kind.TURN, Kind.EFFECT, Kind.TICKET, Kind.REVOKE, Kind.ADMIT),
        *(Kind.OUTCOME, Kind.FAILED, Kind.STEP, Kind.STOP),
        *(Kind.OUTSIDE, Kind.CALLED, Kind.FORCED),
    }
    assert statuses.keys() == {0, 1, 2, 3, 4, 5}


def test_two_fleets_have_two_digests() -> None:
    digests = [simulate(seed, 0).digest for seed in range(20)]
    assert len(dict.fromkeys(digests)) == 20


def test_the_simulated_fleets_use_what_the_rules_are_about() -> None:
    fleets = [make_fleet(seed)[0] for seed in range(FLEETS)]
    assert sum(fleet.schedule.order == "arrival" for fleet in fleets) > 20
    assert sum(bool(fleet.tools) for fleet in fleets) > 20
    assert sum(bool(fleet.sources) for fleet in fleets) > 20
    assert sum(fleet.schedule.item_steps_max > 0 for fleet in fleets) > 20
    groups = [group for fleet in fleets for group in fleet.groups]
    assert sum(group.mailbox_max < 4096 for group in groups) > 50
    assert sum(bool(group.back) for group in groups) > 10
    assert sum(group.join > 0 for group in groups) > 10
    assert sum(group.retries > 0 for group in groups) > 50


def check_seed(seed: int) -> None:
    """One fleet: one history under all physical seeds, and the history is a legal one."""
    first: Run | None = None
    physical = 0
    try:
        for physical in range(PHYSICAL):
            run = simulate(seed, physical, first)
            if first is None:
                first = run
                Audit(seed, run).check()
            assert run.entries == first.entries, difference(run, first)
            assert run.outputs == first.outputs
            # What a repeat keeps is what it was given: sources that were still open say no more.
            assert list(run.kept) == list(first.kept) or one_history(seed)
    except BaseException as error:
        live = "" if physical == 0 or one_history(seed) else " 0"
        error.add_note(f"repeat: python tests/support/simulator.py {seed} {physical}{live}")
        raise
