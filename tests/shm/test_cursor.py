"""One word, two processes."""

import struct

import numpy as np
import pytest

from lockstep.shm import Arena, Cursor, Doorbell, cursor, fence


def test_load_gives_what_was_stored_over_the_whole_range() -> None:
    word = Cursor(bytearray(16), 8)
    for value in (0, 1, 2**32, 2**63, 2**64 - 1):
        word.store(value)
        assert word.load() == value


def test_word_is_native_and_its_neighbours_are_untouched() -> None:
    memory = bytearray(b"\xaa" * 24)
    Cursor(memory, 8).store(0x0102030405060708)
    assert memory == b"\xaa" * 8 + struct.pack("=Q", 0x0102030405060708) + b"\xaa" * 8


@pytest.mark.parametrize("offset", [-8, 9, 16, 1000])
def test_word_outside_the_memory_is_refused(offset: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Cursor(bytearray(16), offset)


def test_unaligned_address_is_refused_even_at_an_aligned_offset() -> None:
    memory = np.zeros(64, np.uint8).data
    with pytest.raises(ValueError, match="not 8-aligned"):
        Cursor(memory, 4)
    with pytest.raises(ValueError, match="not 8-aligned"):
        Cursor(memory[4:], 8)


def test_read_only_memory_can_be_loaded_and_not_stored() -> None:
    word = Cursor(memoryview(np.full(1, 7, np.uint64)).toreadonly(), 0)
    assert word.load() == 7
    with pytest.raises(TypeError, match="read-only"):
        word.store(1)


def test_released_word_gives_the_memory_back() -> None:
    memory = bytearray(8)
    word = Cursor(memory, 0)
    with pytest.raises(BufferError):
        memory.append(0)
    word.release()
    memory.append(0)
    with pytest.raises(ValueError, match="released"):
        word.load()


def test_fence_of_weak_cpus_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor, "STRONG", False)
    word = Cursor(bytearray(8), 0)
    word.store(3)
    fence()
    assert word.load() == 3


def test_stores_of_another_process_arrive_in_order_and_whole(fork) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([4096])
    low, high = Cursor(arena.slice(0), 0), Cursor(arena.slice(0), 128)
    rounds = 20_000

    def write() -> None:
        for count in range(1, rounds + 1):
            value = count << 32 | count  # Both halves agree, or the word was torn.
            high.store(value)
            low.store(value)

    child = fork(write)
    value = 0
    while value >> 32 < rounds:
        value = low.load()
        behind = high.load()
        assert value >> 32 == value & 0xFFFF_FFFF
        assert behind >= value
    assert child.join() == 0
    low.release()
    high.release()
    arena.close()


def test_wait_ends_when_the_value_is_another_and_not_by_a_ring_alone(fork) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([4096])
    there, back = Cursor(arena.slice(0), 0), Cursor(arena.slice(0), 128)
    bells = Doorbell.create(), Doorbell.create()

    def respond() -> None:
        for count in range(200):
            assert there.wait(count, bells[0]) == count + 1
            bells[1].ring()  # For nothing: the other looks, and waits on.
            back.notify(count + 1, bells[1])

    child = fork(respond)
    for count in range(200):
        there.notify(count + 1, bells[0])
        assert back.wait(count, bells[1]) == count + 1
    assert child.join() == 0
    there.release()
    back.release()
    for bell in bells:
        bell.close()
    arena.close()


def test_wait_gives_the_old_value_when_the_time_is_over() -> None:
    word, bell = Cursor(bytearray(8), 0), Doorbell.create()
    bell.ring()
    assert word.wait(0, bell, timeout_s=0.01) == 0
    word.store(7)
    assert word.wait(0, bell, timeout_s=0) == 7
    assert word.wait(0, bell) == 7
    bell.close()
