"""Both platforms keep the same promises, here."""

import mmap
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from memories import ours

from lockstep.shm import (
    BoardReader,
    Platform,
    RingReader,
    RingWriter,
    SegmentFull,
    attach,
    create_ring,
    platform_of,
)

PAGE = mmap.PAGESIZE
SHM = Path("/dev/shm")


@pytest.fixture(params=["linux", "portable"])
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    made = platform_of(request.param)
    yield made
    made.close()


def test_best_platform_here_is_linux() -> None:
    assert platform_of().name == "linux"


@pytest.mark.parametrize(
    ("name", "system", "message"),
    [("vms", "linux", "expected one of linux, portable"), ("linux", "darwin", "needs Linux")],
)
def test_platform_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, system: str, message: str
) -> None:
    monkeypatch.setattr("sys.platform", system)
    with pytest.raises(ValueError, match=message):
        platform_of(name)
    assert platform_of().name == ("linux" if system == "linux" else "portable")


def test_slices_are_zero_and_apart_and_their_words_are_read_at_once(platform: Platform) -> None:
    arena = platform.arena([1, PAGE + 8, PAGE + 8, PAGE + 16])
    assert [len(arena.slice(index)) for index in range(4)] == [1, PAGE + 8, PAGE + 8, PAGE + 16]
    assert all(not any(arena.slice(index)) for index in range(4))
    words = arena.words(1, PAGE)
    arena.slice(2)[PAGE : PAGE + 8] = (7).to_bytes(8, "little")
    assert words.copy().tolist() == [0, 7, 0]
    assert arena.words(4, 0).copy().tolist() == []
    with pytest.raises(ValueError, match="word at byte"):
        arena.words(1, 2 * PAGE)
    del words
    arena.close()


def test_own_slice_is_inherited_or_has_a_name(platform: Platform) -> None:
    arena = platform.arena([PAGE, PAGE])
    arena.seal()
    names = [arena.name(0), arena.name(1)]
    assert [bool(name) for name in names] == [not platform.forks] * 2
    if not platform.forks:
        theirs = attach(names[1], writable=True)
        theirs.memory[:3] = b"hey"
        assert arena.slice(1)[:3] == b"hey" and arena.slice(0)[:3] == bytes(3)
        theirs.close()
        with arena.lend(1):
            pass  # There is nothing to inherit.
    arena.close()
    assert not any((SHM / name[1:]).exists() for name in names if name)


def test_arena_without_room_leaves_nothing(platform: Platform) -> None:
    before = ours()
    with pytest.raises(SegmentFull):
        platform.arena([PAGE, 1 << 60])
    assert ours() == before


def test_records_go_from_one_process_to_another_that_attached(fork, record) -> None:  # type: ignore[no-untyped-def]
    platform = platform_of("portable")
    arena, bell = platform.arena([8192]), platform.doorbell()
    create_ring(arena.slice(0))
    name, ringing = arena.name(0), pickle.dumps(bell.ringing())
    records = [record(b"x" * (n % 200)) for n in range(2000)]

    def write() -> None:
        theirs = attach(name, writable=True)
        writer, rings = RingWriter(theirs.memory), pickle.loads(ringing)
        data, sent = b"".join(records), 0
        while sent < len(data):
            sent = writer.push_many(data, sent)
            rings.ring()

    child = fork(write)
    reader, taken = RingReader(arena.slice(0)), b""
    while len(taken) < sum(map(len, records)):
        bell.wait()
        taken += reader.drain()
    assert taken == b"".join(records)
    assert child.join() == 0
    reader.close()
    arena.close()
    bell.close()
    platform.close()


def test_board_is_read_by_name_and_its_engine_slot_written_by_who_was_handed_it(
    platform: Platform,
) -> None:
    board = platform.board(3)
    theirs = pickle.loads(pickle.dumps(board))
    theirs.engine.update(step=5, tokens_per_s=6)
    board.agent(2).update(name="c", mailbox=7)
    reader = BoardReader.attach(board.name)
    shown = reader.snapshot()
    assert (shown.engine.step, shown.engine.tokens_per_s) == (5, 6)
    assert [agent.index for agent in shown.agents] == [0, 1, 2]
    assert (shown.agents[2].name, shown.agents[2].mailbox) == ("c", 7)
    reader.close()
    board.close()
    assert not (SHM / board.name[1:]).exists()


def test_system_without_fallocate_gets_its_segments_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    platform = platform_of("portable")
    arena = platform.arena([PAGE])
    arena.slice(0)[-1] = 9
    arena.close()
    platform.close()


def test_sweep_is_safe_beside_what_lives(platform: Platform) -> None:
    board = platform.board(1)
    platform.sweep()
    BoardReader.attach(board.name).close()
    board.close()
