"""A process maps its own slice and nothing else: shown on real forks."""

import faulthandler
import mmap
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from lockstep.shm import Arena, SegmentFull, page_aligned

PAGE = mmap.PAGESIZE


def mapped_bytes() -> list[int]:
    """Length of each mapping of a segment in this process."""
    lines = [x for x in Path("/proc/self/maps").read_text().splitlines() if "/memfd:lock" in x]
    spans = [line.split()[0].split("-") for line in lines]
    return [int(stop, 16) - int(start, 16) for start, stop in spans]


def touch(arena: Arena, index: int) -> None:
    faulthandler.disable()  # The expected death needs no dump.
    arena.slice(index)[0] = 1


def test_slices_have_the_sizes_asked_for_and_begin_on_pages() -> None:
    arena = Arena.create([1, PAGE, PAGE + 1])
    assert [len(arena.slice(i)) for i in range(len(arena))] == [1, PAGE, PAGE + 1]
    starts = [np.frombuffer(arena.slice(i), np.uint8).ctypes.data for i in range(3)]
    assert [start % PAGE for start in starts] == [0, 0, 0]
    assert [start - starts[0] for start in starts] == [0, PAGE, 2 * PAGE]
    arena.close()


def test_page_aligned_rounds_up() -> None:
    assert [page_aligned(n) for n in (0, 1, PAGE, PAGE + 1)] == [0, PAGE, PAGE, 2 * PAGE]


@pytest.mark.parametrize("sizes", [[], [0], [16, -1]])
def test_arena_with_an_empty_slice_is_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Arena.create(sizes)


def test_arena_without_room_is_segment_full() -> None:
    with pytest.raises(SegmentFull):
        Arena.create([PAGE, 1 << 60])


def test_child_maps_its_own_slice_only(fork) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([PAGE, 2 * PAGE, 3 * PAGE, PAGE])
    arena.seal()

    def check() -> None:
        assert mapped_bytes() == [2 * PAGE]
        arena.slice(1)[:4] = b"mine"

    with arena.lend(1):
        child = fork(check)
    assert child.join() == 0
    assert arena.slice(1)[:4] == b"mine"  # Parent and child share it.
    assert fork(lambda: os._exit(len(mapped_bytes()))).join() == 0  # Sealed again.
    arena.close()


def test_several_slices_can_be_lent_at_once(fork) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([PAGE, 2 * PAGE, 3 * PAGE])
    arena.seal()
    with arena.lend(0, 2):
        child = fork(lambda: os._exit(sum(mapped_bytes()) // PAGE))
    assert child.join() == 4
    arena.close()


def test_touching_the_slice_of_another_is_a_segmentation_fault(fork) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([PAGE, PAGE])
    arena.seal()

    def check() -> None:
        own = os.fork()
        if own == 0:
            touch(arena, 0)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(own, 0)[1]) == 0
        other = os.fork()
        if other == 0:
            touch(arena, 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == -signal.SIGSEGV

    with arena.lend(0):
        child = fork(check)
    assert child.join() == 0
    assert arena.slice(0)[0] == 1
    assert arena.slice(1)[0] == 0
    arena.close()


def test_child_that_leaves_the_loan_keeps_its_slice_and_bequeaths_none(fork) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([PAGE, PAGE])
    arena.seal()

    def check() -> None:
        assert mapped_bytes() == [PAGE]
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(len(mapped_bytes()))
        assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0

    arena_lent = arena.lend(1)
    with arena_lent:
        pid = os.fork()
    if pid == 0:
        try:
            check()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    arena.close()


def test_child_can_close_the_descriptors_and_keep_its_slice(fork) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([PAGE, PAGE])
    arena.seal()

    def check() -> None:
        for descriptor in arena.descriptors():
            os.close(descriptor)
        for entry in Path("/proc/self/fd").iterdir():
            try:
                assert "lockstep" not in str(entry.readlink())
            except FileNotFoundError:
                pass  # The descriptor that lists the folder.
        arena.slice(0)[:2] = b"ok"

    with arena.lend(0):
        child = fork(check)
    assert child.join() == 0
    assert arena.slice(0)[:2] == b"ok"
    arena.close()


def test_slice_is_lent_again_to_the_successor_of_a_killed_child(fork) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([PAGE, PAGE])
    arena.seal()
    with arena.lend(0):
        first = fork(signal.pause)
    assert first.kill() == -signal.SIGKILL
    with arena.lend(0):
        second = fork(lambda: touch(arena, 0))
    assert second.join() == 0
    assert arena.slice(0)[0] == 1
    arena.close()


def test_views_alive_at_close_are_named_and_closing_works_afterwards() -> None:
    arena = Arena.create([PAGE])
    view = arena.slice(0)[:8]
    with pytest.raises(BufferError, match="still alive"):
        arena.close()
    view.release()
    arena.close()
    arena.close()
    arena = Arena.create([PAGE])
    array = np.frombuffer(arena.slice(0), np.uint8)
    with pytest.raises(BufferError, match="still alive"):
        arena.close()
    assert array[0] == 0
    del array
    arena.close()


def test_words_are_one_of_each_slice_and_the_slices_own_bytes() -> None:
    arena = Arena.create([PAGE, 3 * PAGE, 3 * PAGE, 2 * PAGE + 5])
    words = arena.words(1, PAGE + 8)
    assert words.copy().shape == (3,)
    arena.slice(2)[PAGE + 8 : PAGE + 16] = (7).to_bytes(8, "little")
    assert words.copy().tolist() == [0, 7, 0]
    with pytest.raises(BufferError):
        arena.close()
    del words
    arena.close()


@pytest.mark.parametrize(("first", "offset"), [(0, 0), (1, 4), (1, 2 * PAGE - 4), (1, 2 * PAGE)])
def test_words_that_are_not_in_every_slice_are_refused(first: int, offset: int) -> None:
    arena = Arena.create([PAGE, 2 * PAGE, 2 * PAGE])
    with pytest.raises(ValueError, match="word at byte"):
        arena.words(first, offset)
    assert arena.words(3, 0).copy().tolist() == []
    arena.close()
