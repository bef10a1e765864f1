"""Two real processes and a small ring: nothing lost, nothing doubled, nothing out of order."""

import random
import struct
import zlib
from collections.abc import Iterator

import pytest

from lockstep.shm import (
    Arena,
    Doorbell,
    EventDoorbell,
    PipeDoorbell,
    RingReader,
    RingWriter,
    create_ring,
    ring_bytes,
)

RECORDS = 20_000
CAPACITY = 4096


def numbered(make, seed: int) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
    """Records with a number, a checksum and 0 to 600 random bytes."""
    rng = random.Random(seed)
    for number in range(RECORDS):
        body = rng.randbytes(int(rng.random() ** 4 * 600))
        yield make(struct.pack("<QI", number, zlib.crc32(body)) + body)


def write_all(make, writer: RingWriter, filled: Doorbell, drained: Doorbell, seed: int) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(seed)
    waiting: list[bytes] = []
    for record in numbered(make, seed):
        waiting.append(record)
        if rng.random() < 0.9:
            continue
        batch, at = b"".join(waiting), 0
        waiting.clear()
        while at < len(batch):
            before, at = at, writer.push_many(batch, at)
            if at > before:
                filled.ring()
            else:
                drained.wait()
    for record in waiting:
        while not writer.push_many(record):
            drained.wait()
        filled.ring()


def records_in(data: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(data):
        size = struct.unpack_from("<I", data, offset)[0]
        yield data[offset + 32 : offset + size]
        offset += size + 7 & ~7


@pytest.mark.parametrize("kind", [EventDoorbell, PipeDoorbell])
def test_every_record_arrives_once_and_in_order(fork, record, kind: type) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([ring_bytes(CAPACITY)])
    arena.seal()
    assert create_ring(arena.slice(0)) == CAPACITY
    filled, drained = kind(), kind()
    reader = RingReader(arena.slice(0))

    def work() -> None:
        writer = RingWriter(arena.slice(0))
        write_all(record, writer, filled, drained, seed=7)
        assert writer.statistics.records == RECORDS
        assert writer.statistics.times_full > 0

    with arena.lend(0):
        child = fork(work)
    rng, number = random.Random(1), 0
    while number < RECORDS:
        data = reader.drain(rng.choice((None, 100, 1000)))
        if not data:
            filled.wait()
            continue
        drained.ring()
        for payload in records_in(data):
            found, checksum = struct.unpack_from("<QI", payload)
            assert (found, checksum) == (number, zlib.crc32(payload[12:]))
            number += 1
    assert child.join() == 0
    assert reader.drain() == b""
    assert reader.statistics.records == RECORDS
    reader.close()
    filled.close()
    drained.close()
    arena.close()


def test_what_a_killed_writer_published_is_whole_and_the_rest_unseen(fork, record) -> None:  # type: ignore[no-untyped-def]
    arena = Arena.create([ring_bytes(CAPACITY)])
    create_ring(arena.slice(0))
    filled, drained = Doorbell.create(), Doorbell.create()
    reader = RingReader(arena.slice(0))
    expected = numbered(record, seed=9)
    child = fork(lambda: write_all(record, RingWriter(arena.slice(0)), filled, drained, seed=9))
    taken = 0
    while taken < 2000:
        filled.wait()
        for payload in records_in(reader.drain()):
            assert next(expected)[32 : 32 + len(payload)] == payload
            taken += 1
        drained.ring()
    child.kill()
    for payload in records_in(reader.drain()):
        assert next(expected)[32 : 32 + len(payload)] == payload
    reader.close()
    filled.close()
    drained.close()
    arena.close()
