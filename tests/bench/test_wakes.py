"""The floor: waking a process takes some time, and is measured."""

from lockstep.bench import wakes


def test_every_round_trip_is_measured() -> None:
    times = wakes.wakes_ns()
    assert len(times) == wakes.ROUNDS
    assert min(times) > 0
