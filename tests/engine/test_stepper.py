"""Rule 5: how far the engine may run on a grant that does not know the newest results."""

from collections.abc import Iterator

import pytest

from lockstep.engine.plan import Booked, Ended, Outcome, Request
from lockstep.engine.planner import ModelLimits, Planner
from lockstep.engine.stepper import Stepper


def stepper(lookahead: int = 1) -> Stepper:
    return Stepper(Planner([ModelLimits(4, 64)], 8), lookahead)


def request(ticket: int, due: int = 0, out: int = 1) -> Request:
    return Request(ticket, due, 0, (ticket, ""), (1, 2, 3), out)


def run(one: Stepper) -> Iterator[int]:
    """Every step that may run now."""
    while (step := one.runnable()) is not None:
        plan = one.plan(step)
        (model,) = plan.models
        slots = [c.slot for c in model.chunks if c.last] + [d.slot for d in model.decodes]
        one.commit({(0, slot): Outcome(5) for slot in slots})
        yield step


def test_without_a_grant_nothing_runs() -> None:
    one = stepper()
    one.offer(request(1))
    assert one.runnable() is None


def test_without_work_nothing_runs() -> None:
    one = stepper()
    one.grant(100, 0)
    assert one.runnable() is None


def test_steps_below_the_limit_run() -> None:
    one = stepper()
    one.offer(request(1, out=99))
    one.grant(3, 0)
    assert list(run(one)) == [0, 1, 2]
    one.grant(5, 3)
    assert list(run(one)) == [3, 4]


def test_an_idle_engine_jumps_to_the_smallest_due_within_the_limit() -> None:
    one = stepper()
    one.offer(request(1, due=7))
    one.grant(7, 0)
    assert list(run(one)) == []
    one.grant(8, 0)
    assert list(run(one)) == [7]


@pytest.mark.parametrize("lookahead", [0, 1, 2, 5])
def test_an_end_that_the_grant_did_not_know_bounds_the_engine(lookahead: int) -> None:
    one = stepper(lookahead)
    one.offer(request(1, out=99))
    one.offer(request(2, out=2))  # Ends in step 1; its agent's next ticket is due at 2 + lookahead.
    one.grant(100, 0)
    assert list(run(one)) == list(range(2 + lookahead))


def test_a_grant_that_knows_the_end_lifts_the_bound() -> None:
    one = stepper()
    one.offer(request(1, out=99))
    one.offer(request(2, out=2))
    one.grant(100, 0)
    assert list(run(one)) == [0, 1, 2]
    one.grant(100, 1)  # Knows steps below 1 only; the end was in step 1.
    assert list(run(one)) == []
    one.grant(6, 2)
    assert list(run(one)) == [3, 4, 5]


def test_the_oldest_unknown_end_counts() -> None:
    one = stepper(lookahead=2)
    one.offer(request(1, out=99))
    one.offer(request(2, out=2))
    one.offer(request(3, out=3))
    one.grant(100, 0)
    assert list(run(one)) == [0, 1, 2, 3]
    one.grant(100, 2)  # Knows the end in step 1, not the one in step 2.
    assert list(run(one)) == [4]


def test_a_refusal_at_the_boundary_is_an_end() -> None:
    one = stepper()
    one.offer(request(1, out=99))
    one.offer(Request(2, 1, 0, (2, ""), (1,), 1, refusal="no"))
    one.grant(100, 0)
    assert list(run(one)) == [0, 1, 2]


def test_a_later_grant_may_be_lower_and_replaces_the_earlier() -> None:
    one = stepper()
    one.offer(request(1, out=99))
    one.grant(100, 0)
    one.plan(0)
    one.commit({(0, 0): Outcome(5)})
    one.grant(1, 1)
    assert one.runnable() is None
    one.grant(2, 1)
    assert one.runnable() == 1


def test_a_commit_tells_the_ends_of_the_boundary_first() -> None:
    one = stepper()
    one.offer(request(1))
    one.offer(Request(2, 0, 0, (2, ""), (1,), 1, refusal="no"))
    one.grant(1, 0)
    one.plan(0)
    ended = [Ended(2, "refused", "no"), Ended(1, "length")]
    assert one.commit({(0, 0): Outcome(5)}) == Booked(ended, [])


def test_a_cancel_is_passed_on() -> None:
    one = stepper()
    one.offer(request(1, out=99))
    one.cancel(1, due=1)
    one.grant(100, 0)
    assert list(run(one)) == [0, 1]
