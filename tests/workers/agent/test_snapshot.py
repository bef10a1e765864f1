"""The store of snapshots: what was whole is read back, what was not is never believed."""

import os
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.workers.agent.globals import GLOBALS_MAX
from lockstep.workers.agent.snapshot import (
    CRC_OFFSET,
    HEAD_BYTES,
    HEADER,
    MAGIC,
    PAGE_BYTES,
    VALUE_BYTES,
    Held,
    Store,
    Words,
)

PAGES_MAX = 64
MEMORY_MAX = PAGES_MAX * PAGE_BYTES
WORDS = PAGE_BYTES // 8


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store.create(MEMORY_MAX)
    yield made
    made.close()


def held(turn: int, pages: int = PAGES_MAX, **changes: object) -> Held:
    made = Held(turn, pages * PAGE_BYTES, (b"0123456789abcdef",), turn * 7, turn, frozenset({0, 2}))
    return replace(made, **changes)  # type: ignore[arg-type]


def memory_of(turn: int, pages: int = PAGES_MAX) -> Words:
    """Bytes that tell which turn they are of, with pages of nothing between them."""
    memory = np.full((pages, WORDS), turn + 1, np.uint64)
    memory[:, 1] = np.arange(pages)
    memory[turn % 3 :: 3] = 0
    return memory


def read(store: Store, turn: int, pages: int = PAGES_MAX) -> Words:
    """What comes back, over something else."""
    memory = memory_of(999, pages)
    store.read_memory(turn, memory)
    return memory


def test_header_is_what_its_drawing_says() -> None:
    fields = (MAGIC, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0)
    data = HEADER.pack(*fields)
    assert HEADER.size == 64
    places = [(0, 8), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 4), (CRC_OFFSET, 4)]
    found = [int.from_bytes(data[at : at + size], "little") for at, size in places]
    assert found == [int.from_bytes(MAGIC, "little"), 2, 3, 4, 5, 6, 7, 8, 9]
    assert HEADER.size + GLOBALS_MAX * VALUE_BYTES <= HEAD_BYTES


pages_of_memory = st.lists(
    st.sampled_from([0, 0, 1, 2**63, 0xFF << 56]), min_size=0, max_size=PAGES_MAX
)
states = st.builds(
    Held,
    turn=st.integers(0, 2**63),
    memory_bytes=st.just(0),
    values=st.lists(st.binary(min_size=16, max_size=16), max_size=GLOBALS_MAX).map(tuple),
    clock_us=st.integers(-1, 2**62),
    draws=st.integers(0, 2**63),
    streams=st.frozensets(st.integers(0, 2)),
)


@given(st.lists(st.tuples(pages_of_memory, states), min_size=1, max_size=6))
def test_the_last_snapshot_and_the_one_before_are_read_back(
    written: Sequence[tuple[list[int], Held]],
) -> None:
    store, model = Store.create(MEMORY_MAX), dict[int, tuple[Held, Words]]()
    turn = 0
    for pages, state in written:
        turn += 1
        memory = np.zeros((len(pages), WORDS), np.uint64)
        memory[:, turn % WORDS] = pages
        model[turn] = (replace(state, turn=turn, memory_bytes=memory.nbytes), memory.copy())
        store.write(model[turn][0], memory)
    assert store.newest(10**6) == turn
    for known in (turn, turn - 1):
        if known:
            assert store.newest(known) == known
            assert store.held(known) == model[known][0]
            found = read(store, known, len(model[known][1]))
            assert np.array_equal(found, model[known][1])
    assert store.newest(turn - 2) is None
    store.close()


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert store.newest(10**9) is None
    with pytest.raises(LookupError, match="no snapshot of turn 3"):
        store.held(3)


def test_pages_of_nothing_take_no_memory(store: Store) -> None:
    memory = np.zeros((PAGES_MAX, WORDS), np.uint64)
    memory[[3, 40], 5] = 1
    for turn in (1, 2):
        store.write(held(turn), memory)
    # Of each slot its header, the numbers and the two pages.
    assert os.fstat(store.descriptor).st_blocks * 512 == 2 * 4 * PAGE_BYTES


def test_a_page_that_came_to_nothing_is_cleared(store: Store) -> None:
    store.write(held(1), np.zeros((PAGES_MAX, WORDS), np.uint64))
    assert not read(store, 1).any()


class Dying(Store):
    """Its process dies at the n-th call that would write."""

    def __init__(self, store: Store, calls: int) -> None:
        super().__init__(store.descriptor, MEMORY_MAX)
        self.left = calls

    def _put(self, pieces: Sequence[memoryview], at: int) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        super()._put(pieces, at)


@pytest.mark.parametrize("calls", range(4))
def test_a_snapshot_whose_writer_died_is_not_believed(store: Store, calls: int) -> None:
    for turn in (1, 2):
        store.write(held(turn), memory_of(turn))
    try:
        Dying(store, calls).write(held(3), memory_of(3))
    except KeyboardInterrupt:
        pass
    newest = 3 if calls == 3 else 2
    # Even without its checksum: what is half written has no header.
    assert {slot.held.turn for slot in store._slots()} == {2, 3} & {2, newest}
    assert store.newest(100) == newest
    assert np.array_equal(read(store, newest), memory_of(newest))
    store.write(held(4), memory_of(4))  # And the next one goes into the slot that has nothing.
    assert (store.newest(100), store.newest(newest)) == (4, newest)


def test_no_flipped_bit_of_a_snapshot_is_believed(store: Store) -> None:
    for turn in (1, 2):
        store.write(held(turn), memory_of(turn, 8))
    slot = 0 if os.pread(store.descriptor, 16, 0)[8] == 2 else store._slot_bytes
    head = range(slot, slot + HEADER.size + VALUE_BYTES)
    numbers = range(slot + HEAD_BYTES, slot + HEAD_BYTES + 4 * 5)
    pages = range(slot + store._pages_at, slot + store._pages_at + 5 * PAGE_BYTES, 509)
    for at in (*head, *numbers, *pages):
        for bit in range(8):
            (was,) = os.pread(store.descriptor, 1, at)
            os.pwrite(store.descriptor, bytes((was ^ 1 << bit,)), at)
            assert store.newest(100) == 1, (at - slot, bit)
            os.pwrite(store.descriptor, bytes((was,)), at)
    assert store.newest(100) == 2


@contextmanager
def file_size_limit(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_the_newer_snapshot_stays(store: Store) -> None:
    for turn in (1, 2):
        store.write(held(turn), memory_of(turn))
    room = store._pages_at + 3 * PAGE_BYTES + 17
    with file_size_limit(room), pytest.raises(OSError, match="bytes of a snapshot"):
        store.write(held(3), memory_of(3))
    assert store.newest(100) == 2
    assert np.array_equal(read(store, 2), memory_of(2))


@pytest.mark.parametrize("taken", range(1, 30, 4))
def test_whenever_its_writer_is_killed_what_is_believed_is_whole(store: Store, taken: int) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for turn in range(1, 10**6):
                store.write(held(turn), memory_of(turn))
                os.write(writing, b".")
        finally:
            os._exit(1)
    os.close(writing)
    try:
        for _ in range(taken):
            assert os.read(reading, 1) == b"."
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    newest = store.newest(10**6)
    assert newest is not None and newest >= taken
    assert store.held(newest) == held(newest)
    assert np.array_equal(read(store, newest), memory_of(newest))
