"""One side killed at random, again and again: no bad record, and the ring is good for the next.

Each record has a number and a checksum. `pytest -m nightly tests/shm/test_ring_kills.py` kills
300 times instead of 30.
"""

import itertools
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from lockstep.shm import (
    Batch,
    Cursor,
    Doorbell,
    Inlet,
    Memory,
    Outlet,
    RingReader,
    RingWriter,
    WatchedBell,
    create_ring,
    ring_bytes,
)
from lockstep.shm.errors import PeerDied
from lockstep.shm.header import HEADER_BYTES, OFFSETS

CAPACITY = 16_384
KILLS = [pytest.param(30, id="30"), pytest.param(300, id="300", marks=pytest.mark.nightly)]


class Shared(NamedTuple):
    memory: Memory
    filled: Doorbell
    drained: Doorbell
    reached: Cursor  # By the side that is killed.


@pytest.fixture
def shared(shared_memory_of: Callable[[int], Memory]) -> Iterator[Shared]:
    memory = shared_memory_of(ring_bytes(CAPACITY) + 128)
    ring = memoryview(memory)[: ring_bytes(CAPACITY)]
    create_ring(ring)
    word = Cursor(memory, ring_bytes(CAPACITY))
    bells = Doorbell.create(), Doorbell.create()
    yield Shared(ring, *bells, word)
    word.release()
    for bell in bells:
        bell.close()
    ring.release()


def record(number: int) -> bytes:
    """Small and large ones, the same for every process."""
    rng = random.Random(number)
    body = rng.randbytes(int(rng.random() ** 5 * 8000))
    head = struct.pack("<QI", number, zlib.crc32(body))
    size = 32 + len(head) + len(body)
    return struct.pack("<IHHQQII", size, 3, 0, 0, 0, 0, 0) + head + body + bytes(-size % 8)


def number_in(view: memoryview) -> int:
    """Of a record that is whole."""
    number, checksum = struct.unpack_from("<QI", view, 32)
    assert zlib.crc32(view[44:]) == checksum, f"record {number}"
    return int(number)


def published(ring: Memory) -> int:
    return int(struct.unpack_from("=Q", ring, OFFSETS["head"])[0])


@pytest.mark.parametrize("kills", KILLS)
def test_killed_writers_leave_whole_records_and_a_ring_for_the_next(  # type: ignore[no-untyped-def]
    fork, shared: Shared, kills: int
) -> None:
    """Every way to write, stopped anywhere: claimed, filled, published, rung or not."""
    ways = random.Random(5)
    reader = RingReader(shared.memory)

    def write(first: int) -> None:
        writer = RingWriter(shared.memory)
        outlet = Outlet(writer, shared.filled, shared.drained)
        batch = Batch(outlet)
        for number in itertools.count(first):
            one = record(number)
            size = struct.unpack_from("<I", one)[0]
            if number % 100 < 50:
                batch.add(one)
                continue
            batch.flush()
            if number % 2:
                outlet.send(one[:32], one[32:size])  # Large ones in place.
            else:
                outlet.send_many(one)

    expected = 0
    for _ in range(kills):
        child = fork(lambda first=expected: write(first))
        life = os.pidfd_open(child.pid)
        inlet = Inlet(reader, WatchedBell(shared.filled, life), shared.drained)
        stop = expected + ways.randrange(400)
        with pytest.raises(PeerDied):
            while True:
                for view in inlet.receive():
                    assert number_in(view) == expected
                    expected += 1
                if expected >= stop:
                    os.kill(child.pid, 9)
        os.close(life)
        assert child.join() == -9
    assert reader.statistics.records == expected > 0
    reader.close()


@pytest.mark.parametrize("kills", KILLS)
def test_killed_readers_leave_everything_that_they_did_not_take_to_the_next(  # type: ignore[no-untyped-def]
    fork, shared: Shared, kills: int
) -> None:
    """A record is taken when the tail has moved: one that was being read is read again, whole."""
    rng = random.Random(6)
    writer, number = RingWriter(shared.memory), 0

    def read() -> None:
        reader = RingReader(shared.memory)
        expected = None
        while True:
            taken = memoryview(reader.drain(rng.randrange(4000)) or reader.pop())
            if not taken:
                shared.drained.ring()
                shared.filled.wait()
            offset = 0
            while offset < len(taken):
                size = struct.unpack_from("<I", taken, offset)[0]
                found = number_in(taken[offset : offset + size])
                assert expected in (None, found), "a gap"
                expected = found + 1
                offset += size + 7 & ~7
                shared.reached.store(expected)

    for _ in range(kills):
        child = fork(read)
        life = os.pidfd_open(child.pid)
        drained = WatchedBell(shared.drained, life)
        stop = number + 1 + rng.randrange(400)
        while True:
            if writer.push_many(record(number)):
                number += 1
                shared.filled.ring()
            elif number < stop:
                drained.wait()
            else:
                break
        os.kill(child.pid, 9)
        assert child.join() == -9  # It did not end by an assertion.
        os.close(life)
    # What is still there goes on where the last one had moved the tail to, up to the last record.
    reader, left = RingReader(shared.memory), []
    while taken := reader.pop():
        left.append(number_in(memoryview(taken)[: struct.unpack_from("<I", taken)[0]]))
    assert left == list(range(number - len(left), number))
    assert 0 < shared.reached.load() <= number
    assert published(shared.memory) > CAPACITY and len(shared.memory) == HEADER_BYTES + CAPACITY
    reader.close()
    writer.close()
