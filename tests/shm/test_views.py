"""Views: every record once and in order, out of one private buffer, whatever the peer scribbles."""

import struct
from collections.abc import Callable, Iterator

import pytest

from lockstep.shm import (
    Memory,
    RingClosed,
    RingCorrupt,
    RingReader,
    RingViews,
    RingWriter,
    create_ring,
    ring_bytes,
)
from lockstep.shm.header import OFFSETS
from lockstep.shm.walk import KIND_PADDING

CAPACITY = 512


@pytest.fixture
def memory(memory_of: Callable[[int], Memory]) -> Memory:
    memory = memory_of(ring_bytes(CAPACITY))
    create_ring(memory)
    return memory


@pytest.fixture
def writer(memory: Memory) -> Iterator[RingWriter]:
    writer = RingWriter(memory)
    yield writer
    writer.close()


@pytest.fixture
def reader(memory: Memory) -> Iterator[RingReader]:
    reader = RingReader(memory, "from agent 3")
    yield reader
    reader.close()


def test_views_are_the_records_without_the_zeros_behind_them(writer, reader, record) -> None:  # type: ignore[no-untyped-def]
    views = RingViews(reader)
    records = [record(b"p" * n) for n in (0, 1, 8, 13)]
    writer.push_many(b"".join(records))
    found = views.take()
    assert [bytes(view) for view in found] == [
        one[: 32 + n] for one, n in zip(records, (0, 1, 8, 13), strict=True)
    ]
    assert views.take() == []
    assert reader.statistics == writer.statistics


def test_every_record_comes_once_over_the_end_and_through_a_small_buffer(  # type: ignore[no-untyped-def]
    writer, reader, record
) -> None:
    views, sent, got = RingViews(reader, 256), [], []
    for number in range(200):
        some = [record(bytes([number]) * (8 * (number * 7 % 24))) for _ in range(1 + number % 3)]
        for one in some:
            while not writer.push_many(one):
                got += [bytes(view) for view in views.take()]
        sent += some
    while found := views.take():
        got += [bytes(view) for view in found]
    assert got == sent
    assert reader.statistics == writer.statistics.__class__(len(sent), sum(map(len, sent)))


def test_at_most_a_buffer_is_taken_at_once_and_one_record_at_least(writer, reader, record) -> None:  # type: ignore[no-untyped-def]
    views = RingViews(reader, 1)  # The least is half the capacity: the largest record fits.
    writer.push(record(bytes(224)))
    for _ in range(8):
        writer.push(record(b""))
    assert [len(view) for view in views.take()] == [256]
    assert [len(view) for view in views.take()] == [32] * 8


def test_views_are_a_private_copy_until_the_next_take(writer, reader, record, memory) -> None:  # type: ignore[no-untyped-def]
    views = RingViews(reader)
    writer.push(record(b"first"))
    (first,) = views.take()
    memory[256:] = b"\xff" * CAPACITY
    assert first == record(b"first")[:37]
    writer.push(record(b"other"))
    views.take()
    assert first == record(b"other")[:37]  # The same memory: said so, and no copy was made.


def test_views_may_be_mixed_with_every_other_way_to_take_records(writer, reader, record) -> None:  # type: ignore[no-untyped-def]
    views = RingViews(reader)
    for number in range(50):
        records = [record(bytes(8 * n), kind=number) for n in range(4)]
        for one in records:
            writer.push(one)
        assert reader.pop() == records[0]
        taken = [bytes(view) for view in views.take()]
        while more := views.take():
            taken += [bytes(view) for view in more]
        assert taken == records[1:]


@pytest.mark.parametrize(
    ("size", "kind", "message"),
    [
        (0, 3, "record at 40: size is 0, expected 32 to 40"),
        (31, 3, "record at 40: size is 31, expected 32 to 40"),
        (41, 3, "record at 40: size is 41, expected 32 to 40"),
        (2**32 - 1, 3, "record at 40: size is 4294967295, expected 32 to 40"),
        (40, KIND_PADDING, "padding at 40: size is 40, expected 472"),
    ],
)
def test_what_is_whole_is_taken_before_a_size_that_makes_no_sense_poisons_the_ring(  # type: ignore[no-untyped-def]
    writer, reader, record, memory, size: int, kind: int, message: str
) -> None:
    views = RingViews(reader)
    writer.push_many(record(b"a" * 8) + record(b"b" * 8))
    struct.pack_into("<IH", memory, 256 + 40, size, kind)
    assert [bytes(view) for view in views.take()] == [record(b"a" * 8)]
    for _ in range(2):
        with pytest.raises(RingCorrupt, match=f"from agent 3: {message}"):
            views.take()


def test_head_that_makes_no_sense_poisons_the_ring(reader, memory) -> None:  # type: ignore[no-untyped-def]
    views = RingViews(reader)
    for head in (2**63, 520, 12):
        struct.pack_into("=Q", memory, OFFSETS["head"], head)
        with pytest.raises(RingCorrupt, match="head is"):
            views.take()


def test_views_of_a_closed_reader_are_refused(reader) -> None:  # type: ignore[no-untyped-def]
    views = RingViews(reader)
    reader.close()
    with pytest.raises(RingClosed):
        views.take()
