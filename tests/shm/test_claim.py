"""Claims: filled where they lie, seen when they are published, or not at all."""

import struct
from collections.abc import Callable, Iterator

import pytest

from lockstep.shm import (
    Claim,
    Memory,
    RingClosed,
    RingFull,
    RingReader,
    RingStatistics,
    RingWriter,
    create_ring,
    ring_bytes,
)
from lockstep.shm.walk import KIND_PADDING

CAPACITY = 512
Ring = tuple[RingWriter, RingReader, Memory]


@pytest.fixture
def ring(memory_of: Callable[[int], Memory]) -> Iterator[Ring]:
    memory = memory_of(ring_bytes(CAPACITY))
    create_ring(memory)
    writer, reader = RingWriter(memory, "to agent 3"), RingReader(memory)
    yield writer, reader, memory
    writer.close()
    reader.close()


def fill(room: memoryview, record: bytes) -> None:
    room[:] = record[: len(room)]


def test_claim_is_seen_when_its_context_is_left_and_not_before(ring: Ring, record) -> None:  # type: ignore[no-untyped-def]
    writer, reader, _ = ring
    with Claim(writer, 43) as room:
        fill(room, record(b"x" * 11))
        assert len(room) == 43
        assert reader.drain() == b""
    assert reader.drain() == record(b"x" * 11)
    assert writer.statistics == RingStatistics(1, 48, 0)


def test_zeros_are_put_behind_a_record_also_where_something_else_lay(ring: Ring, record) -> None:  # type: ignore[no-untyped-def]
    writer, reader, memory = ring
    memory[256:] = b"\xee" * CAPACITY  # type: ignore[index]
    for size in range(33, 41):
        with Claim(writer, size) as room:
            fill(room, record(b"y" * (size - 32)))
        assert reader.drain() == record(b"y" * (size - 32))


def test_writer_that_is_closed_inside_a_claim_stays_closed(ring: Ring, record) -> None:  # type: ignore[no-untyped-def]
    writer, reader, _ = ring
    with pytest.raises(RingClosed), Claim(writer, 40) as room:
        fill(room, record(b"y" * 8))
        writer.close()
    with pytest.raises(RingClosed):
        writer.push(record(b"z"))
    assert reader.drain() == b""


def test_claim_that_is_left_by_an_exception_is_as_if_it_had_not_been(ring: Ring, record) -> None:  # type: ignore[no-untyped-def]
    writer, reader, _ = ring
    with pytest.raises(KeyError), Claim(writer, 40) as room:
        fill(room, record(b"z" * 8))
        raise KeyError
    assert reader.drain() == b""
    writer.push(record(b"after"))
    assert reader.drain() == record(b"after")
    assert writer.statistics.records == 1


def test_claim_before_the_end_is_given_behind_it_with_the_gap_padded(ring: Ring, record) -> None:  # type: ignore[no-untyped-def]
    writer, reader, memory = ring
    for _ in range(2):
        writer.push(record(bytes(200)))
    reader.drain()  # 464 of 512.
    with Claim(writer, 64) as room:
        fill(room, record(b"o" * 32))
    assert struct.unpack_from("<IH", memory, 256 + 464) == (48, KIND_PADDING)
    assert reader.drain() == record(b"o" * 32)


def test_claim_without_room_is_refused_and_changes_nothing(ring: Ring, record) -> None:  # type: ignore[no-untyped-def]
    writer, reader, memory = ring
    for _ in range(2):
        writer.push(record(bytes(208)))
    before = bytes(memory)
    with pytest.raises(RingFull, match="to agent 3: no room for 40 bytes"):
        Claim(writer, 40).__enter__()
    assert bytes(memory) == before
    writer.push(record(b""))  # 32 bytes are left.
    assert len(reader.drain()) == 512


@pytest.mark.parametrize("size", [-1, 0, 31, 257, 2**40])
def test_claim_of_a_size_that_no_record_has_is_refused_with_both_numbers(
    ring: Ring, size: int
) -> None:
    with pytest.raises(ValueError, match=f"a record of {size} bytes, expected 32 to 256"):
        Claim(ring[0], size).__enter__()


@pytest.mark.parametrize(("size", "kind"), [(39, 3), (48, 3), (0, 0), (40, KIND_PADDING)])
def test_what_is_not_the_record_that_was_claimed_is_not_published(
    ring: Ring, record, size: int, kind: int
) -> None:  # type: ignore[no-untyped-def]
    writer, reader, _ = ring
    with (
        pytest.raises(ValueError, match=rf"size {size} and kind {kind} were filled in, .* 40 "),
        Claim(writer, 40) as room,
    ):
        struct.pack_into("<IH", room, 0, size, kind)
    assert reader.drain() == b""
    writer.push(record(b"1"))
    assert reader.drain() == record(b"1")


def test_nothing_else_goes_into_the_ring_while_a_claim_is_open(ring: Ring, record) -> None:  # type: ignore[no-untyped-def]
    writer, reader, _ = ring
    with Claim(writer, 40) as room:
        for use in (
            lambda: writer.push(record(b"no")),
            lambda: writer.push_many(record(b"no")),
            Claim(writer, 40).__enter__,
        ):
            with pytest.raises(ValueError, match="to agent 3: a claim is open"):
                use()
        fill(room, record(b"c" * 8))
    writer.push(record(b"yes"))
    assert reader.drain() == record(b"c" * 8) + record(b"yes")


def test_closed_writer_gives_no_claims(ring: Ring) -> None:
    writer = ring[0]
    writer.close()
    with pytest.raises(RingClosed):
        Claim(writer, 40).__enter__()
