"""The slot ring: vectors in, vectors out."""

import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from lockstep.shm import (
    Arena,
    Doorbell,
    Memory,
    RingClosed,
    RingCorrupt,
    RingStatistics,
    SlotReader,
    SlotWriter,
    create_ring,
    create_slots,
    slots_bytes,
)
from lockstep.shm.header import HEADER_BYTES, MAGIC_SLOTS, OFFSETS

TICKET = np.dtype([("ticket", "<u8"), ("row", "<u4"), ("token", "<i4")])
Ring = tuple[SlotWriter, SlotReader, Memory]


def tickets(start: int, count: int) -> np.ndarray:  # type: ignore[type-arg]
    array = np.zeros(count, TICKET)
    array["ticket"] = np.arange(start, start + count)
    array["row"] = array["ticket"] % 7
    array["token"] = -array["ticket"].astype(np.int64)
    return array


@pytest.fixture
def ring(memory_of: Callable[[int], Memory]) -> Iterator[Ring]:
    memory = memory_of(slots_bytes(8, TICKET))
    assert create_slots(memory, TICKET) == 8
    writer, reader = SlotWriter(memory, TICKET, "tickets"), SlotReader(memory, TICKET, "tickets")
    yield writer, reader, memory
    writer.close()
    reader.close()


def test_slots_come_out_as_they_went_in_across_the_end(ring: Ring) -> None:
    writer, reader, _ = ring
    for start in range(0, 50, 5):
        assert writer.push(tickets(start, 5)) == 5
        assert np.array_equal(reader.drain(), tickets(start, 5))
    assert len(reader.drain()) == 0
    assert reader.drain().dtype == TICKET


def test_full_ring_takes_what_fits_from_the_front(ring: Ring) -> None:
    writer, reader, _ = ring
    assert writer.push(tickets(0, 5)) == 5
    assert writer.push(tickets(5, 5)) == 3
    assert writer.push(tickets(8, 2)) == 0
    assert np.array_equal(reader.drain(), tickets(0, 8))
    assert writer.push(tickets(8, 2)) == 2
    assert np.array_equal(reader.drain(), tickets(8, 2))
    assert writer.statistics == RingStatistics(10, 160, 2)
    assert reader.statistics == RingStatistics(10, 160, 0)


def test_pushing_nothing_is_nothing(ring: Ring) -> None:
    writer, reader, _ = ring
    assert writer.push(tickets(0, 0)) == 0
    assert len(reader.drain()) == 0
    assert writer.statistics == RingStatistics()


def test_what_was_drained_is_a_private_copy(ring: Ring) -> None:
    writer, reader, memory = ring
    writer.push(tickets(3, 2))
    taken = reader.drain()
    memory[HEADER_BYTES:] = b"\xff" * (len(memory) - HEADER_BYTES)  # type: ignore[index]
    assert np.array_equal(taken, tickets(3, 2))
    taken["row"] = 1  # And writable.


def test_header_and_slots_are_where_the_drawing_says(ring: Ring) -> None:
    writer, reader, memory = ring
    writer.push(tickets(1, 3))
    reader.drain()
    writer.push(tickets(4, 1))
    found = {name: struct.unpack_from("=Q", memory, at)[0] for name, at in OFFSETS.items()}
    assert (found.pop("rings"), found.pop("waits")) == (0, 0)
    assert found == {"magic": MAGIC_SLOTS, "capacity": 8, "slot_bytes": 16, "head": 4, "tail": 3}
    assert bytes(memory[256 + 48 : 256 + 64]) == struct.pack("<QIi", 4, 4, -4)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head", 2, "tickets: head is 2, expected 3 to 11"),
        ("head", 12, "tickets: head is 12, expected 3 to 11"),
        ("head", 2**63, "tickets: head is 9223372036854775808"),
        ("tail", 2, "tickets: tail is 2, expected 3 to 5"),
        ("tail", 6, "tickets: tail is 6, expected 3 to 5"),
    ],
)
def test_cursor_that_makes_no_sense_poisons_the_ring(
    ring: Ring, name: str, value: int, message: str
) -> None:
    writer, reader, memory = ring
    writer.push(tickets(0, 3))
    reader.drain()
    writer.push(tickets(3, 2))
    struct.pack_into("=Q", memory, OFFSETS[name], value)
    use = reader.drain if name == "head" else lambda: writer.push(tickets(0, 1))
    for _ in range(2):
        with pytest.raises(RingCorrupt, match=message):
            use()
        struct.pack_into("=Q", memory, OFFSETS[name], 5)


def test_ring_of_another_kind_or_slot_size_is_refused(ring: Ring) -> None:
    _, _, memory = ring
    with pytest.raises(RingCorrupt, match="slot_bytes is 0x10, expected 0x8"):
        SlotReader(memory, np.dtype("<u8"))
    other = bytearray(4096)
    create_ring(other)
    with pytest.raises(RingCorrupt, match="magic"):
        SlotWriter(other, TICKET)


def test_wrong_arrays_and_dtypes_are_refused(ring: Ring) -> None:
    writer, reader, _ = ring
    for wrong in (np.zeros(2, "<u8"), np.zeros((2, 2), TICKET), np.zeros((), TICKET)):
        with pytest.raises(ValueError, match="expected 1 of"):
            writer.push(wrong)
    assert len(reader.drain()) == 0
    for dtype in (np.dtype(object), np.dtype("S0")):
        with pytest.raises(ValueError, match="plain data"):
            create_slots(bytearray(4096), dtype)
    with pytest.raises(ValueError, match="271 bytes of memory, expected 272"):
        create_slots(bytearray(271), TICKET)
    with pytest.raises(ValueError, match="power of two"):
        slots_bytes(3, TICKET)


def test_closed_side_refuses_and_gives_the_memory_back() -> None:
    memory = bytearray(slots_bytes(4, TICKET))
    create_slots(memory, TICKET)
    writer, reader = SlotWriter(memory, TICKET), SlotReader(memory, TICKET)
    for side in (writer, reader):
        side.close()
        side.close()
    memory.append(0)  # BufferError if a view were alive.
    with pytest.raises(RingClosed):
        writer.push(tickets(0, 1))
    with pytest.raises(RingClosed):
        reader.drain()


def test_slots_between_two_processes_arrive_once_and_in_order(fork) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([slots_bytes(64, TICKET)])
    memory, total = arena.slice(0), 50_000
    create_slots(memory, TICKET)
    filled, drained = Doorbell.create(), Doorbell.create()
    reader = SlotReader(memory, TICKET)

    def write() -> None:
        writer, at = SlotWriter(memory, TICKET), 0
        while at < total:
            taken = writer.push(tickets(at, min(1 + at % 90, total - at)))
            if taken:
                filled.ring()
                at += taken
            else:
                drained.wait()

    child = fork(write)
    at = 0
    while at < total:
        taken = reader.drain()
        if len(taken):
            drained.ring()
            assert np.array_equal(taken, tickets(at, len(taken)))
            at += len(taken)
        else:
            filled.wait()
    assert child.join() == 0
    reader.close()
    filled.close()
    drained.close()
    arena.close()
