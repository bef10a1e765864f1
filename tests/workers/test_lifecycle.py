"""The lifecycle of a process: every pair of state and event is a move or a refusal."""

from __future__ import annotations

import itertools

import pytest

from lockstep.engine.errors import LockstepBug
from lockstep.engine.fleet import Recovery
from lockstep.workers import lifecycle
from lockstep.workers.lifecycle import EVENTS, MOVES, STATES, Lifecycle, Restarts, backoff_s

# By state, what each event leads to, in the order of `EVENTS`; "-": it cannot come.
#  ready repeat exit overdue broken timer refused exhausted caught_up ended buried elsewhere
TABLE = {
    "starting": "running recovering backoff killing killing - - - - - ended -",
    "running": "- - backoff killing killing - - - - ended ended killing",
    "killing": "- - backoff - killing - - - - ended ended -",
    "backoff": "- - - - - recovering - run_stopped - - ended -",
    "recovering": "- - backoff killing killing - backoff - running - ended -",
    "ended": "- - ended - - - - - - - ended -",
    "run stopped": "- - - - - - - - - - - -",
}


def test_the_table_names_every_state_and_event() -> None:
    assert list(TABLE) == list(STATES)
    for state, event in MOVES:
        assert state in STATES and event in EVENTS and MOVES[state, event] in STATES


@pytest.mark.parametrize(("state", "event"), list(itertools.product(STATES, EVENTS)))
def test_every_event_in_every_state_moves_or_is_refused(state: str, event: str) -> None:
    life = Lifecycle()
    life.state = state
    expected = TABLE[state].split()[EVENTS.index(event)].replace("_", " ")
    if expected == "-":
        with pytest.raises(LockstepBug, match=f"is '{state}' cannot get '{event}'"):
            life.on(event)
        assert life.state == state
    else:
        assert life.on(event) == life.state == expected


def test_nobody_comes_back_from_the_end() -> None:
    for last in (lifecycle.ENDED, lifecycle.RUN_STOPPED):
        assert {after for (state, _), after in MOVES.items() if state == last} <= {last}


def test_a_process_always_gets_to_an_end_or_on() -> None:
    """Whoever is not running has a way back to it that accidents alone cannot close."""
    for state in (lifecycle.KILLING, lifecycle.BACKOFF, lifecycle.RECOVERING):
        life = Lifecycle()
        life.state = state
        for event in ("exit", "timer", "caught_up"):
            if (life.state, event) in MOVES:
                life.on(event)
        assert life.state == lifecycle.RUNNING


def test_the_first_restart_is_at_once_and_each_further_one_waits_longer() -> None:
    restarts = Restarts(Recovery(restarts_max=10, window_s=60))
    waits = [restarts.next(100.0) for _ in range(11)]
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, None]
    assert restarts.total == 10
    assert restarts.exhausted() == "[recovery] restarts_max = 10 within 60 s"


def test_a_restart_is_forgotten_after_the_window() -> None:
    restarts = Restarts(Recovery(restarts_max=2, window_s=10))
    times = (0.0, 5.0, 9.999, 10.0, 10.0, 15.0, 20.0)
    assert [restarts.next(now) for now in times] == [0.0, 0.1, None, 0.1, None, 0.1, 0.1]
    assert restarts.total == 5


def test_without_restarts_the_first_accident_is_the_last() -> None:
    assert Restarts(Recovery(restarts_max=0)).next(0.0) is None


def test_the_wait_has_a_bound_however_often() -> None:
    assert backoff_s(10**9) == lifecycle.BACKOFF_S_MAX
