"""The limit of a step: what was not its own is given back to it, and to nothing else."""

import signal
from collections.abc import Iterator

import pytest

from lockstep.workers.inference import step_limit

LIMIT_S = 1000.0
TICK_S = 1.0  # The kernel tells what is left in ticks of its own, rounded up.


def left_s() -> float:
    return signal.getitimer(signal.ITIMER_PROF)[0]


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    step_limit.end()


def test_what_is_given_back_prolongs_a_step() -> None:
    step_limit.begin(LIMIT_S)
    assert 0 < left_s() <= LIMIT_S + TICK_S
    step_limit.give_back(500.0)
    assert LIMIT_S + TICK_S < left_s() <= LIMIT_S + 500 + TICK_S
    step_limit.begin(LIMIT_S)
    assert left_s() <= LIMIT_S + TICK_S


def test_between_steps_and_without_a_limit_nothing_is_armed() -> None:
    step_limit.begin(LIMIT_S)
    step_limit.end()
    step_limit.give_back(500.0)
    assert left_s() == 0
    step_limit.begin(0)
    step_limit.give_back(500.0)
    assert left_s() == 0
