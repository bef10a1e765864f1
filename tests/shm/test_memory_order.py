"""What rings lean on, hammered: no torn word, no store before another, and the one exception.

`lockstep.shm.cursor` has the argument; these are the experiments beside it. They can refute it on
a machine and prove nothing about others. `pytest -m nightly tests/shm/test_memory_order.py` runs
them for minutes instead of seconds.
"""

import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from lockstep.shm import Arena, Cursor, Doorbell, Memory

Words: TypeAlias = npt.NDArray[np.uint64]

LINE = 128  # Bytes from word to word: no two in one cache line, or in a pair of them.
SHORT = pytest.param(1, id="short")
LONG = pytest.param(100, id="long", marks=pytest.mark.nightly)


def words(memory: Memory, count: int) -> list[Cursor]:
    return [Cursor(memory, number * LINE) for number in range(count)]


@pytest.mark.parametrize("times", [SHORT, LONG])
def test_word_is_never_read_half_old_and_half_new(  # type: ignore[no-untyped-def]
    fork, shared_memory_of: Callable[[int], Memory], times: int
) -> None:
    """The torn-read hammer: one process stores words of equal bytes, another reads all the time."""
    word, done = words(shared_memory_of(2 * LINE), 2)
    patterns = [int.from_bytes(bytes([n]) * 8, "little") for n in range(256)]
    stores = 100_000 * times

    def write() -> None:
        for number in range(stores):
            word.store(patterns[number & 255])
        done.store(1)

    child = fork(write)
    reads, legal = 0, set(patterns)
    while not done.load():
        for _ in range(100):
            value = word.load()
            assert value in legal, f"{value:#018x} after {reads} reads"
        reads += 100
    assert child.join() == 0
    word.release()
    done.release()


@pytest.mark.parametrize("times", [SHORT, LONG])
def test_payload_is_there_when_the_cursor_behind_it_has_moved(  # type: ignore[no-untyped-def]
    fork, shared_memory_of: Callable[[int], Memory], times: int
) -> None:
    """Message passing without a bell: some lines by slice assignment, then the cursor.

    All only ever grows, so that nobody has to wait for anybody: what is read behind a cursor of n
    is of round n or a later one.
    """
    memory = shared_memory_of(8 * LINE)
    (head,) = words(memory, 1)
    payload = memoryview(memory)[LINE : 8 * LINE]
    count, rounds = len(payload) // 8, 30_000 * times

    def write() -> None:
        for number in range(1, rounds + 1):
            payload[:] = struct.pack("=Q", number) * count
            head.store(number)

    child = fork(write)
    number = 0
    while number < rounds:
        number = head.load()
        assert min(struct.unpack(f"={count}Q", payload)) >= number
    assert child.join() == 0
    payload.release()
    head.release()


class Litmus:
    """Two processes: each stores n into its own word, rings or not, and loads the other's."""

    def __init__(self, rounds: int, bell: Doorbell | None) -> None:
        self.rounds = rounds
        self._ring = bell.ring if bell else None
        self._arena = Arena.create([2 * LINE, 8 * rounds])
        self._words = words(self._arena.slice(0), 2)
        self._seen = self._arena.slice(1).cast("Q")  # By the child, round by round.

    def play(self, me: int) -> list[int]:
        """What was loaded in rounds 1, 2, ..."""
        mine, theirs, ring = self._words[me].word, self._words[1 - me].word, self._ring
        seen = []
        for number in range(1, self.rounds + 1):
            mine[0] = number
            if ring:
                ring()
            seen.append(theirs[0])
        return seen

    def both(self, fork: Callable[[Callable[[], None]], Any]) -> tuple[Words, Words]:
        """Play until both were at it at the same time."""
        while True:
            for word in self._words:
                word.store(0)
            child = fork(self._respond)
            seen = np.array(self.play(0), np.uint64)
            assert child.join() == 0
            if ((seen > 0) & (seen < self.rounds)).any():
                return seen, np.array(self._seen, np.uint64)

    def _respond(self) -> None:
        for number, value in enumerate(self.play(1)):
            self._seen[number] = value

    def close(self) -> None:
        for word in self._words:
            word.release()
        self._seen.release()
        self._arena.close()


def missed_by_both(ours: Words, theirs: Words) -> int:
    """How many rounds i of ours have a round j of theirs in which neither saw the other's store.

    We did not see their store j (saw less), they did not see our store i. What is seen only grows,
    so that of all j that we did not see in round i the first one decides.
    """
    first = ours.astype(np.int64)  # Its index: round j = ours[i] + 1 is at place ours[i].
    inside = first < len(theirs)
    rounds = np.arange(1, len(ours) + 1)
    return int((theirs[first[inside]] < rounds[inside]).sum())


def test_litmus_is_judged_by_what_neither_has_seen() -> None:
    one = np.array([0], np.uint64)
    assert missed_by_both(one, one) == 1  # Both stored 1, both saw 0.
    assert missed_by_both(one, np.array([1], np.uint64)) == 0
    assert missed_by_both(np.array([1, 1], np.uint64), np.array([0, 1], np.uint64)) == 1
    assert missed_by_both(np.array([1, 1], np.uint64), np.array([0, 2], np.uint64)) == 0


@pytest.mark.parametrize("times", [SHORT, LONG])
def test_who_rings_before_he_looks_never_misses_what_the_other_did_before_he_rang(  # type: ignore[no-untyped-def]
    fork, times: int, record_property
) -> None:
    """The store-load litmus: "neither saw the other's store" must not be, behind a ring.

    Without the ring it is legal on every CPU: a store waits in its core's buffer while the load
    behind it is done. That is how a test of "does somebody wait?" after a publish loses a wake-up,
    and why there is no such test in a ring: a publish is followed by a ring of the bell, always,
    and whoever comes second to the bell's lock in the kernel sees what the first had stored. How
    often it happened without a ring is in the report of the run (``store_load_passed``), not
    asserted: that is the machine's affair.
    """
    bell = Doorbell.create()
    missed = {}
    for kind, litmus in (
        ("bare", Litmus(50_000 * times, None)),
        ("rung", Litmus(10_000 * times, bell)),
    ):
        missed[kind] = missed_by_both(*litmus.both(fork))
        litmus.close()
    bell.close()
    record_property("store_load_passed", missed["bare"])
    assert missed["rung"] == 0
