"""Catch-up: every turn but the running one comes again as it was, in order, and takes no effect."""

from __future__ import annotations

import hashlib

import pytest

from lockstep.engine.effects import Turn
from lockstep.engine.errors import Diverged, LockstepBug
from lockstep.engine.past import PastTurn
from lockstep.engine.record import Kind, Outcome, TurnEnd, decode, encode, encode_wake
from lockstep.workers.catch_up import AHEAD_BYTES, AHEAD_TURNS, CatchUp

EVENT = encode(Kind.MESSAGE, b"hello", id=3)


def recorded(number: int, outcome: int | None = Outcome.BLOCKED, event: bytes = EVENT) -> PastTurn:
    events = event if number else b""
    records = encode(Kind.LOG, b"turn %d" % number)
    fuel = 0 if outcome is None else 100 + number
    return PastTurn(number, (number, 0), events, 1, fuel, outcome, records, "")


def done(number: int, **changes: object) -> Turn:
    fields = {
        "number": number,
        "fuel": 100 + number,
        "outcome": Outcome.BLOCKED,
        "reason": "",
        "records": encode(Kind.LOG, b"turn %d" % number),
    } | changes
    return Turn(**fields)  # type: ignore[arg-type]


def end_of(turn: Turn) -> TurnEnd:
    digest = hashlib.sha256(turn.records).digest()
    return TurnEnd(turn.number, Outcome(turn.outcome), turn.fuel, 1, digest, turn.reason)


def numbers(wakes: bytes) -> list[int]:
    return [record.id for record in decode(wakes) if record.kind == Kind.WAKE]


def test_what_is_recorded_is_repeated_and_only_the_running_turn_is_new() -> None:
    turns = [recorded(0), recorded(1), recorded(2, outcome=None)]
    catch_up = CatchUp("a", turns, 0, running=True, newest=end_of(done(1)))
    assert numbers(catch_up.wakes()) == [1, 2]  # Turn 0 begins by itself.
    assert [catch_up.ended(done(0)), catch_up.ended(done(1))] == [False, False]
    assert not catch_up.done
    assert catch_up.ended(done(2, fuel=9, records=b"")) is True  # Nobody knows what it will do.
    assert catch_up.done and catch_up.repeated == 3


def test_a_wake_is_what_the_first_process_got() -> None:
    catch_up = CatchUp("a", [recorded(0), recorded(1)], 0, running=False, newest=None)
    assert catch_up.wakes() == encode_wake(1, 1, 0, EVENT, 1)
    assert catch_up.wakes() == b""


def test_wakes_lie_ready_ahead_within_a_bound() -> None:
    turns = [recorded(n) for n in range(3 * AHEAD_TURNS)]
    catch_up = CatchUp("a", turns, 0, running=False, newest=None)
    sent = numbers(catch_up.wakes())
    assert sent == list(range(1, AHEAD_TURNS))
    for number in range(len(turns)):
        catch_up.ended(done(number))
        sent += numbers(catch_up.wakes())
    assert sent == list(range(1, len(turns))) and catch_up.done


def test_large_wakes_go_one_by_one() -> None:
    large = encode(Kind.MESSAGE, bytes(AHEAD_BYTES))
    catch_up = CatchUp("a", [recorded(n, event=large) for n in range(4)], 0, False, None)
    assert numbers(catch_up.wakes()) == [1]
    catch_up.ended(done(0))
    assert numbers(catch_up.wakes()) == [2]


def test_what_it_was_woken_with_meanwhile_lies_behind_the_repetition() -> None:
    catch_up = CatchUp("a", [recorded(0), recorded(1)], 0, running=False, newest=None)
    late = encode_wake(2, 7, 0, EVENT, 1)
    assert numbers(catch_up.wakes()) == [1]
    catch_up.later(late)
    catch_up.ended(done(0))
    assert catch_up.wakes() == b""
    catch_up.ended(done(1))
    assert catch_up.wakes() == late


def test_a_new_process_may_begin_in_the_middle() -> None:
    turns = [recorded(n) for n in range(4)]
    catch_up = CatchUp("a", turns, 2, running=False, newest=None)
    assert numbers(catch_up.wakes()) == [2, 3]
    assert [catch_up.ended(done(2)), catch_up.ended(done(3))] == [False, False]
    assert catch_up.done and catch_up.repeated == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fuel": 7}, "it burnt 7 fuel, recorded are 101"),
        ({"records": encode(Kind.LOG, b"turn X")}, r"its record 0 is LOG .*'turn X'.*'turn 1'"),
        ({"outcome": Outcome.RETURNED}, "it ended as returned, recorded is blocked"),
    ],
)
def test_a_repeated_turn_that_differs_is_told_with_both_sides(
    changes: dict[str, object], told: str
) -> None:
    catch_up = CatchUp("a", [recorded(0), recorded(1)], 0, running=False, newest=None)
    catch_up.ended(done(0))
    before = "agent a: turn 1 at tag 1.0 was repeated and differs from the record: "
    with pytest.raises(Diverged, match=before + told):
        catch_up.ended(done(1, **changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"fuel": 7}, "fuel 101 -> 7"),
        ({"records": b""}, "sha256 of its records"),
        ({"outcome": Outcome.TRAPPED, "reason": "oops"}, "outcome 0 -> .*; reason  -> oops"),
    ],
)
def test_a_turn_that_had_arrived_and_was_not_recorded_is_compared_with_its_end(
    changes: dict[str, object], told: str
) -> None:
    turns = [recorded(0), recorded(1, outcome=None)]
    catch_up = CatchUp("a", turns, 0, running=False, newest=end_of(done(1)))
    catch_up.ended(done(0))
    if told:
        with pytest.raises(Diverged, match=f"turn 1 at tag 1.0 .*{told}"):
            catch_up.ended(done(1, **changes))
    else:
        assert catch_up.ended(done(1, **changes)) is False


def test_turns_out_of_order_or_beyond_the_last_are_told() -> None:
    catch_up = CatchUp("a", [recorded(0), recorded(1)], 0, running=True, newest=None)
    with pytest.raises(Diverged, match="agent a: turn 1 came again, not 0"):
        catch_up.ended(done(1))
    catch_up.ended(done(0))
    catch_up.ended(done(1))
    with pytest.raises(Diverged, match="agent a: turn 2 came again, not none"):
        catch_up.ended(done(2))


def test_a_new_process_that_begins_in_the_present_repeats_nothing() -> None:
    catch_up = CatchUp("a", [recorded(0), recorded(1)], 2, running=False, newest=None)
    assert catch_up.done and catch_up.wakes() == b"" and catch_up.repeated == 0
    catch_up.later(EVENT)
    assert catch_up.wakes() == EVENT


def test_a_catch_up_that_cannot_be_is_a_bug() -> None:
    for first, running in ((3, False), (2, True)):
        with pytest.raises(LockstepBug, match=f"catch-up from turn {first} of 2"):
            CatchUp("a", [recorded(0), recorded(1)], first, running, newest=None)
    unknown = CatchUp("a", [recorded(0, outcome=None)], 0, running=False, newest=None)
    with pytest.raises(LockstepBug, match="turn 0 is not running, not known"):
        unknown.ended(done(0))
