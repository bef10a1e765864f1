"""Where agents run: together with the supervisor while one of them is all that goes on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lockstep.workers import placement as placements
from lockstep.workers.placement import Placement

EVERYWHERE = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
pytestmark = pytest.mark.skipif(len(EVERYWHERE) < 2, reason="needs two cores it may choose from")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to the kernel first, and no turn is slow."""
    monkeypatch.setattr(placements, "REST_WAKES", 0)
    monkeypatch.setattr(placements, "SLOW_S", 1e9)


@pytest.fixture
def seats() -> Iterator[list[Any]]:
    """Two seats with a process each that waits, and one without."""
    processes = [
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)
    ]
    yield [*(SimpleNamespace(child=SimpleNamespace(pid=p.pid)) for p in processes),
           SimpleNamespace(child=None)]  # fmt: skip
    os.sched_setaffinity(0, EVERYWHERE)
    for process in processes:
        process.communicate(b"\n")


def cores(seat: Any) -> set[int]:
    """Where a seat's process may run."""
    return os.sched_getaffinity(seat.child.pid)


def test_agents_woken_alone_share_the_core_of_the_supervisor(seats: list[Any]) -> None:
    placement = Placement(seats)
    placement.alone(0)
    placement.alone(1)
    own = os.sched_getaffinity(0)
    assert len(own) == 1
    assert cores(seats[0]) == cores(seats[1]) == own


def test_everybody_may_run_anywhere_again_when_more_goes_on(seats: list[Any]) -> None:
    placement = Placement(seats)
    placement.alone(0)
    placement.together()
    assert os.sched_getaffinity(0) == cores(seats[0]) == EVERYWHERE
    placement.alone(0)
    assert len(cores(seats[0])) == 1


def test_cores_that_were_not_allowed_stay_so(seats: list[Any]) -> None:
    allowed = {min(EVERYWHERE)}
    for pid in (0, seats[0].child.pid):
        os.sched_setaffinity(pid, allowed)
    placement = Placement(seats)
    placement.alone(0)
    placement.together()
    assert os.sched_getaffinity(0) == cores(seats[0]) == allowed
    assert cores(seats[1]) == EVERYWHERE


def test_an_agent_without_a_process_or_whose_process_ended_is_passed_over(seats: list[Any]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    seats[1] = SimpleNamespace(child=SimpleNamespace(pid=ended.pid))
    placement = Placement(seats)
    placement.alone(2)
    placement.alone(1)
    placement.together()
    assert os.sched_getaffinity(0) == EVERYWHERE


def test_turns_that_take_long_are_left_to_the_kernel_for_a_while(
    seats: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = Placement(seats)
    placement.alone(0)
    assert len(cores(seats[0])) == 1
    monkeypatch.setattr(placements, "REST_WAKES", 2)
    monkeypatch.setattr(placements, "SLOW_S", 0.0)  # Whatever time has passed since is too long.
    placement.alone(0)
    assert cores(seats[0]) == os.sched_getaffinity(0) == EVERYWHERE
    monkeypatch.setattr(placements, "SLOW_S", 1e9)
    placement.alone(0)
    assert cores(seats[0]) == EVERYWHERE
    placement.alone(0)
    assert len(cores(seats[0])) == 1
