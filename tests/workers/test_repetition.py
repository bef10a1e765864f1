"""A second execution stops at the first entry that is not the recorded one."""

import pytest

from lockstep.engine.errors import Diverged
from lockstep.workers.expectation import SINCE
from lockstep.workers.repetition import Repetition


def test_equal_entries_pass_and_so_does_what_follows_on_a_record_that_stopped() -> None:
    made = Repetition([b"a", b"b"])
    for body in (b"a", b"b", b"c"):
        made.take(body)


def test_the_first_entry_that_differs_stops_it() -> None:
    made = Repetition([b"a", b"b"])
    made.take(b"a")
    with pytest.raises(Diverged, match="entry 1 of the history"):
        made.take(b"x")


@pytest.mark.parametrize("note", ["cpu.model: a -> b", "versions.wasmtime: 1 -> 2"])
def test_where_bits_cannot_be_expected_it_runs_to_its_end(note: str) -> None:
    made = Repetition([b"a"])
    made.noted(f"{SINCE}{note}")
    made.take(b"x")


def test_a_difference_that_leaves_the_bits_does_not_hide_one() -> None:
    made = Repetition([b"a"])
    made.noted(f"{SINCE}versions.python: 1 -> 2")
    made.noted("something else")
    with pytest.raises(Diverged):
        made.take(b"x")
