"""The byte ring: order, room, wrap, distrust. The same suite over all kinds of memory."""

import struct
from collections.abc import Callable, Iterator

import pytest

from lockstep.shm import (
    Memory,
    RingClosed,
    RingCorrupt,
    RingFull,
    RingReader,
    RingStatistics,
    RingWriter,
    capacity_for,
    create_ring,
    ring_bytes,
)
from lockstep.shm.cursor import STRONG
from lockstep.shm.header import OFFSETS
from lockstep.shm.ring import KIND_PADDING

CAPACITY = 512


def make(payload: bytes, kind: int = 3) -> bytes:
    size = 32 + len(payload)
    return struct.pack("<IHHQQII", size, kind, 0, 0, 0, 0, 0) + payload + bytes(-size % 8)


@pytest.fixture
def memory(memory_of: Callable[[int], Memory]) -> Memory:
    return memory_of(ring_bytes(CAPACITY))


@pytest.fixture
def ring(memory: Memory) -> Iterator[tuple[RingWriter, RingReader, Memory]]:
    create_ring(memory)
    writer, reader = RingWriter(memory, "out of agent 3"), RingReader(memory, "out of agent 3")
    yield writer, reader, memory
    writer.close()
    reader.close()


def poke(memory: Memory, name: str, value: int) -> None:
    struct.pack_into("=Q", memory, OFFSETS[name], value)


def peek(memory: Memory, name: str) -> int:
    return int(struct.unpack_from("=Q", memory, OFFSETS[name])[0])


Ring = tuple[RingWriter, RingReader, Memory]


# Sizes


def test_capacity_is_the_largest_power_of_two_that_fits() -> None:
    sizes = {256 + 64: 64, 4096: 2048, 4096 + 256: 4096, 4096 + 255: 2048}
    assert {size: create_ring(bytearray(size)) for size in sizes} == sizes
    assert ring_bytes(4096) == 4352
    with pytest.raises(ValueError, match="319 bytes of memory, expected 320 or more"):
        create_ring(bytearray(319))
    for wrong in (0, 32, 100):
        with pytest.raises(ValueError, match=f"capacity is {wrong}"):
            ring_bytes(wrong)


@pytest.mark.parametrize("payload_bytes", [0, 1, 8, 31, 32, 33, 96, 1000])
def test_largest_record_fits_at_every_position_of_its_ring(payload_bytes: int) -> None:
    largest = make(b"x" * payload_bytes)
    capacity = capacity_for(32 + payload_bytes)
    assert len(largest) <= capacity // 2
    for shift in range(0, capacity, 8):
        memory = bytearray(ring_bytes(capacity))
        create_ring(memory)
        poke(memory, "head", shift)
        poke(memory, "tail", shift)
        writer, reader = RingWriter(memory), RingReader(memory)
        writer.push(largest)
        assert reader.drain() == largest


@pytest.mark.parametrize("payload_bytes", [0, 1, 7, 8, 100, 224])
@pytest.mark.parametrize("cut", [3, 32, 33, 256])
def test_record_in_two_parts_is_written_as_one_with_zeros_behind_it(
    ring: tuple[RingWriter, RingReader, Memory], payload_bytes: int, cut: int
) -> None:
    writer, reader, memory = ring
    memory[256:] = b"\xee" * CAPACITY  # type: ignore[index]
    whole = make(bytes([7]) * payload_bytes)
    record = whole[: 32 + payload_bytes]
    for _ in range(4):  # Also over the end.
        writer.push(record[:cut], record[cut:])
        assert reader.drain() == whole
    assert writer.statistics == RingStatistics(4, 4 * len(whole), 0)


# Order and room


def test_records_come_out_as_they_went_in(ring: Ring) -> None:
    writer, reader, _ = ring
    records = [make(bytes(n)) for n in (0, 1, 8, 100)]
    for one in records:
        writer.push(one)
    assert reader.drain() == b"".join(records)
    assert reader.drain() == b""


def test_full_ring_refuses_and_changes_nothing(ring: Ring) -> None:
    writer, reader, memory = ring
    for number in range(CAPACITY // 32):
        writer.push(make(b"", kind=number))
    before = bytes(memory)
    with pytest.raises(RingFull, match="out of agent 3: no room for 32 bytes"):
        writer.push(make(b""))
    assert writer.push_many(make(b"")) == 0
    assert bytes(memory) == before
    assert writer.statistics.times_full == 2
    assert len(reader.drain(32)) == 32
    writer.push(make(b"", kind=77))
    assert reader.drain()[-32:] == make(b"", kind=77)


def test_push_many_takes_whole_records_and_goes_on_where_it_stopped(ring: Ring) -> None:
    writer, reader, _ = ring
    records = b"".join(make(bytes([n]) * 68, kind=n) for n in range(20))  # 104 bytes each.
    at, got = 0, b""
    stops = []
    while at < len(records):
        at = writer.push_many(records, at)
        stops.append(at // 104)
        got += reader.drain()
    # 4 fit before the end; with a gap of 96 padded, 3 or 4 do; and so on.
    assert got == records
    assert stops[0] == 4
    assert writer.push_many(records, len(records)) == len(records)
    assert writer.push_many(b"") == 0


def test_gap_before_the_end_is_padded_once_the_record_fits_behind_it(ring: Ring) -> None:
    writer, reader, memory = ring
    writer.push(make(b"a" * 216))  # 0 to 248
    writer.push(make(b"b" * 224))  # 248 to 504: a gap of 8, the smallest, remains.
    with pytest.raises(RingFull):
        writer.push(make(b"c"))
    assert peek(memory, "head") == 504  # No padding without a record behind it.
    assert reader.drain(1) == make(b"a" * 216)
    writer.push(make(b"c"))
    assert struct.unpack_from("<IH", memory, 256 + 504) == (8, KIND_PADDING)
    assert peek(memory, "head") == 512 + 40
    assert reader.drain() == make(b"b" * 224) + make(b"c")
    assert peek(memory, "tail") == 512 + 40


def test_drain_with_a_limit_takes_whole_records_and_one_at_least(ring: Ring) -> None:
    writer, reader, _ = ring
    sizes = [0, 8, 100, 16]
    records = [make(bytes(n)) for n in sizes]
    writer.push_many(b"".join(records))
    assert reader.drain(0) == records[0]
    assert reader.drain(39) == records[1]
    assert reader.drain(136 + 47) == records[2]
    assert reader.drain(48) == records[3]
    assert reader.drain(0) == b""


def test_limit_is_kept_across_the_end_of_the_ring(ring: Ring) -> None:
    writer, reader, _ = ring
    writer.push(make(b"x" * 216))
    writer.push(make(b"y" * 192))  # 248 to 472: a gap of 40.
    reader.drain(1)
    writer.push_many(make(b"") + make(b"1") + make(b"2"))  # 472 to 504, padding, 0 to 80.
    assert reader.drain(224 + 32) == make(b"y" * 192) + make(b"")
    assert reader.drain(1) == make(b"1")  # Padding alone is no progress: one record at least.
    assert reader.drain(1) == make(b"2")
    assert reader.drain() == b""


def test_what_was_drained_is_a_private_copy(ring: Ring) -> None:
    writer, reader, memory = ring
    writer.push(make(b"keep"))
    taken = reader.drain()
    memory[256:] = b"\xff" * CAPACITY  # type: ignore[index]
    assert taken == make(b"keep")


def test_side_that_opens_later_goes_on_at_the_cursors(ring: Ring) -> None:
    writer, reader, memory = ring
    writer.push(make(b"1"))
    writer.push(make(b"2"))
    reader.drain(1)
    second_writer, second_reader = RingWriter(memory), RingReader(memory)
    second_writer.push(make(b"3"))
    assert second_reader.drain() == make(b"2") + make(b"3")
    second_writer.close()
    second_reader.close()


def test_unpublished_bytes_of_a_killed_writer_are_not_seen(ring: Ring) -> None:
    writer, reader, memory = ring
    writer.push(make(b"whole"))
    memory[256 + 40 : 256 + 80] = make(b"torn")  # type: ignore[index]
    assert reader.drain() == make(b"whole")
    assert reader.drain() == b""


def test_statistics_count_records_and_their_bytes_on_both_sides(ring: Ring) -> None:
    writer, reader, _ = ring
    for _ in range(10):
        writer.push_many(make(b"x" * 70) * 3)
        reader.drain()
    assert writer.statistics == RingStatistics(30, 30 * 104, 0)
    assert reader.statistics == RingStatistics(30, 30 * 104, 0)


# Refusals of our own mistakes


def test_record_above_half_the_capacity_is_refused_with_both_numbers(ring: Ring) -> None:
    writer, reader, _ = ring
    writer.push(make(bytes(224)))
    with pytest.raises(ValueError, match=r"264 bytes, the largest for this ring is 256"):
        writer.push(make(bytes(225)))
    with pytest.raises(ValueError, match="record at byte 32: 264 bytes"):
        writer.push_many(make(b"") + make(bytes(225)))
    assert reader.drain() == make(bytes(224))  # None of the call was published.


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x20\0\0\0",
        make(b"")[:-8],
        make(b"") + b"\0" * 8,
        make(b"") * 2,
        make(b"", kind=KIND_PADDING),
        struct.pack("<IHH", 8, 3, 0),
        struct.pack("<IHH", 0, 3, 0) + bytes(24),
        struct.pack("<IHH", 0xFFFFFFFF, 3, 0) + bytes(24),
    ],
)
def test_malformed_record_is_refused_before_it_reaches_the_peer(ring: Ring, record: bytes) -> None:
    writer, reader, _ = ring
    with pytest.raises(ValueError, match="out of agent 3"):
        writer.push(record)
    assert reader.drain() == b""


@pytest.mark.parametrize(
    ("record", "body"),
    [
        (make(b"x" * 8), b"more"),
        (make(b"x" * 8)[:39], b""),  # One byte is missing.
        (make(b"x" * 8)[:32], b"x" * 7),
        (make(b"", kind=KIND_PADDING)[:32], b""),
    ],
)
def test_two_parts_that_are_not_one_record_are_refused(
    ring: tuple[RingWriter, RingReader, Memory], record: bytes, body: bytes
) -> None:
    writer, reader, _ = ring
    with pytest.raises(ValueError, match="out of agent 3"):
        writer.push(record, body)
    assert reader.drain() == b""


def test_closed_side_refuses_and_gives_the_memory_back() -> None:
    memory = bytearray(ring_bytes(CAPACITY))
    create_ring(memory)
    writer, reader = RingWriter(memory), RingReader(memory)
    writer.push(make(b""))
    reader.drain()
    for side in (writer, reader):
        side.close()
        side.close()
    memory.append(0)  # BufferError if a view were alive.
    for use in (lambda: writer.push(make(b"")), lambda: writer.push_many(b""), reader.drain):
        with pytest.raises(RingClosed, match="this side closed it"):
            use()
    assert writer.statistics.records == reader.statistics.records == 1


# Distrust


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (64, "head is 64, expected 72 to 552"),  # Back behind what was seen.
        (0, "head is 0, expected 72 to 552"),
        (560, "head is 560, expected 72 to 552"),  # Beyond the capacity.
        (2**63 + 72, "head is 9223372036854775880, expected 72 to 552"),
        (2**64 - 8, "head is 18446744073709551608, expected 72 to 552"),
        (76, "head is 76, expected a multiple of 8"),
    ],
)
def test_head_that_makes_no_sense_poisons_the_reader(ring: Ring, head: int, message: str) -> None:
    writer, reader, memory = ring
    writer.push(make(b"x"))
    writer.push(make(b""))
    reader.drain(1)  # Has seen the head at 72, consumed up to 40.
    poke(memory, "head", head)
    for _ in range(2):
        with pytest.raises(RingCorrupt, match=f"out of agent 3: {message}"):
            reader.drain()
    poke(memory, "head", 72)
    with pytest.raises(RingCorrupt, match=message):  # Poisoned for good.
        reader.drain()
    assert peek(memory, "tail") == 40


def test_head_inside_a_record_poisons_the_reader(ring: Ring) -> None:
    writer, reader, memory = ring
    writer.push(make(b"x"))
    poke(memory, "head", 32)
    with pytest.raises(RingCorrupt, match="record at 0: size is 33, expected 32 to 32"):
        reader.drain()


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (0, "tail is 0, expected 40 to 72"),
        (80, "tail is 80, expected 40 to 72"),
        (2**63, "tail is 9223372036854775808, expected 40 to 72"),
        (41, "tail is 41, expected a multiple of 8"),
    ],
)
def test_tail_that_makes_no_sense_poisons_the_writer(ring: Ring, tail: int, message: str) -> None:
    writer, reader, memory = ring
    writer.push(make(b"x"))
    writer.push(make(b""))
    reader.drain(1)
    writer.push_many(b"")  # It has seen the tail at 40 now.
    poke(memory, "tail", tail)
    with pytest.raises(RingCorrupt, match=message):
        writer.push_many(make(b""))
    poke(memory, "tail", 40)
    with pytest.raises(RingCorrupt, match=message):
        writer.push(make(b""))


def test_peer_that_scribbles_over_our_own_cursor_changes_nothing(ring: Ring) -> None:
    writer, reader, memory = ring
    writer.push(make(b"1"))
    poke(memory, "head", 2**40)
    writer.push(make(b"2"))
    poke(memory, "tail", 2**40)
    assert reader.drain() == make(b"1") + make(b"2")
    assert (peek(memory, "head"), peek(memory, "tail")) == (80, 80)


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ((0, 3), "record at 40: size is 0, expected 32 to 80"),
        ((31, 3), "record at 40: size is 31, expected 32 to 80"),
        ((81, 3), "record at 40: size is 81, expected 32 to 80"),
        ((0xFFFFFFFF, 3), "record at 40: size is 4294967295, expected 32 to 80"),
        ((80, KIND_PADDING), "padding at 40: size is 80, expected 472"),
        ((472, KIND_PADDING), "padding at 40: size is 472, expected 472|padding at 40"),
    ],
)
def test_size_that_makes_no_sense_poisons_this_ring_only(
    ring: Ring, prefix: tuple[int, int], message: str
) -> None:
    writer, reader, memory = ring
    for _ in range(3):
        writer.push(make(b"x"))
    struct.pack_into("<IH", memory, 256 + 40, *prefix)
    for _ in range(2):
        with pytest.raises(RingCorrupt, match=message):
            reader.drain()
    assert peek(memory, "tail") == 0  # Nothing was taken, also not the good record before it.
    other = bytearray(ring_bytes(CAPACITY))
    create_ring(other)
    RingWriter(other).push(make(b""))
    assert RingReader(other).drain() == make(b"")


def test_record_above_half_the_capacity_is_refused_also_by_the_reader() -> None:
    memory = bytearray(ring_bytes(CAPACITY))
    create_ring(memory)
    memory[256 : 256 + 264] = make(bytes(232))
    poke(memory, "head", 264)
    with pytest.raises(RingCorrupt, match="record at 0: size is 264, expected 32 to 256"):
        RingReader(memory).drain()


def test_record_across_the_end_is_refused() -> None:
    memory = bytearray(ring_bytes(CAPACITY))
    create_ring(memory)
    poke(memory, "tail", CAPACITY - 16)
    poke(memory, "head", CAPACITY + 64)
    struct.pack_into("<IH", memory, 256 + CAPACITY - 16, 40, 3)
    with pytest.raises(RingCorrupt, match="record at 496: size is 40, expected 32 to 16"):
        RingReader(memory).drain()


def test_padding_at_the_end_of_what_is_ready_is_skipped() -> None:
    memory = bytearray(ring_bytes(CAPACITY))
    create_ring(memory)
    poke(memory, "tail", CAPACITY - 16)
    poke(memory, "head", CAPACITY)
    struct.pack_into("<IH", memory, 256 + CAPACITY - 16, 16, KIND_PADDING)
    reader = RingReader(memory)
    assert reader.drain() == b""
    assert peek(memory, "tail") == CAPACITY
    assert reader.statistics == RingStatistics()


# One record at a time


def test_records_are_popped_one_by_one_over_the_end_of_the_ring(ring: Ring) -> None:
    writer, reader, _ = ring
    assert reader.pop() == b""
    for number in range(40):
        records = [make(bytes([number]) * (number + n), kind=n) for n in range(3)]
        for one in records:
            writer.push(one)
        assert [reader.pop() for _ in range(4)] == [*records, b""]
    assert reader.statistics.records == writer.statistics.records == 120
    assert reader.statistics.bytes == writer.statistics.bytes


def test_popping_may_be_mixed_with_draining(ring: Ring) -> None:
    writer, reader, _ = ring
    for number in range(60):
        records = [make(bytes(8 * n), kind=number) for n in range(4)]
        assert writer.push_many(b"".join(records)) == sum(map(len, records))
        assert reader.pop() == records[0]
        assert reader.drain(len(records[1])) == records[1]
        assert reader.pop() == records[2]
        assert reader.drain() == records[3]


@pytest.mark.skipif(not STRONG, reason="cursors need a fence: the tail is looked at each time")
def test_room_that_was_seen_last_is_used_before_the_tail_is_looked_at_again() -> None:
    memory = bytearray(ring_bytes(CAPACITY))
    create_ring(memory)
    writer, reader = RingWriter(memory), RingReader(memory)
    poke(memory, "tail", 2**63)  # Scribbled: it matters as soon as it is needed.
    for _ in range(16):
        writer.push(make(b""))
    for _ in range(2):  # A ring that is given up stays so.
        with pytest.raises(RingCorrupt, match="tail is 9223372036854775808"):
            writer.push(make(b""))
    assert len(reader.drain()) == 512


@pytest.mark.parametrize("size", [0, 31, 80, 255, 2**31, 2**32 - 8, 2**32 - 1])
def test_popped_record_of_a_senseless_size_poisons_this_ring_only(ring: Ring, size: int) -> None:
    writer, reader, memory = ring
    writer.push(make(b""))
    writer.push(make(b"x"))
    assert reader.pop() == make(b"")
    struct.pack_into("<I", memory, 256 + 32, size)
    for _ in range(2):
        with pytest.raises(RingCorrupt, match=f"record at 32: size is {size}, expected 32 to 40"):
            reader.pop()
    assert peek(memory, "tail") == 32


def test_marked_records_are_found_on_both_sides_of_the_end(memory: Memory) -> None:
    create_ring(memory)
    writer, reader = RingWriter(memory), RingReader(memory, mark_from=64)
    for _ in range(7):  # 504 of 512 bytes gone by: what comes next lies across the end.
        writer.push(make(bytes(40)))
        assert reader.take().count == 1
    parts = [make(b"a"), make(b"b", kind=64), make(b"c"), make(b"d", kind=70), make(b"e", kind=69)]
    assert writer.push_many(b"".join(parts)) == 200
    data, count, marks = reader.take()
    assert (data, count, marks) == (b"".join(parts), 5, [(40, 1), (120, 3), (160, 4)])
    assert reader.take() == (b"", 0, [])
    writer.close()
    reader.close()


def test_a_writer_that_waits_is_heard_once_and_only_if_it_says_so(
    ring: tuple[RingWriter, RingReader, Memory],
) -> None:
    writer, reader, _ = ring
    writer.announce()
    assert not reader.awaited()
    writer.announce(waiting=True)
    assert reader.awaited()
    assert not reader.awaited()


def test_a_reader_that_opens_later_hears_of_a_writer_that_waits_already(
    ring: tuple[RingWriter, RingReader, Memory],
) -> None:
    writer, _, memory = ring
    writer.announce(waiting=True)
    later = RingReader(memory)
    assert later.awaited()
    assert not later.awaited()
    later.close()


def test_counters_of_a_peer_that_lies_harm_nobody(
    ring: tuple[RingWriter, RingReader, Memory],
) -> None:
    writer, reader, memory = ring
    poke(memory, "rings", 2**64 - 1)
    poke(memory, "waits", 2**64 - 1)
    assert reader.awaited()
    writer.announce(waiting=True)  # Round to 0: compared only.
    assert reader.awaited()
    writer.push(make(b"x"))
    assert reader.drain() == make(b"x")
