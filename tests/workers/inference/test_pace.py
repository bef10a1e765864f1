"""Tokens per second of late."""

from lockstep.workers.inference.pace import Pace


def test_pace_is_that_of_the_last_whole_second_and_of_the_first_so_far() -> None:
    pace = Pace(100, now_s=5.0)
    assert pace.after(100, 5.0) == 0
    assert pace.after(110, 5.1) == 100  # So far.
    assert pace.after(112, 5.9) == 100  # Until the second is over.
    assert pace.after(120, 6.0) == 20
    assert pace.after(700, 6.5) == 20
    assert pace.after(720, 7.0) == 600


def test_steps_longer_than_a_second_and_pauses_count_with_their_time() -> None:
    pace = Pace(0, now_s=0.0)
    assert pace.after(8, 4.0) == 2
    assert pace.after(16, 6.0) == 4
    assert pace.after(16, 106.0) == 0
    assert pace.after(66, 107.0) == 50
