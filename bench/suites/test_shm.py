"""Rings, slots and bells, call by call in one process; messages one way and back between two."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from lockstep import shm
from lockstep.bench.rings import CAPACITIES, SLOT, SLOTS_BATCH, SLOTS_CAPACITY, Rings, header_of

RECORDS = 100
CAPACITY = 1 << 18


class Ends:
    """Both sides of one ring, in this process."""

    def __init__(self) -> None:
        memory = memoryview(bytearray(shm.ring_bytes(CAPACITY)))
        shm.create_ring(memory)
        self.writer, self.reader = shm.RingWriter(memory), shm.RingReader(memory)
        self.views = shm.RingViews(self.reader)


def push(ends: Ends, record: bytes) -> None:
    for _ in range(RECORDS):
        ends.writer.push(record)


def push_many(ends: Ends, record: bytes) -> None:
    ends.writer.push_many(record * RECORDS)


def claim(ends: Ends, record: bytes) -> None:
    for _ in range(RECORDS):
        with shm.Claim(ends.writer, len(record)) as room:
            room[:] = record


def pop(ends: Ends) -> int:
    count = 0
    while ends.reader.pop():
        count += 1
    return count


def take(ends: Ends) -> int:
    return ends.reader.take().count


def views(ends: Ends) -> int:
    count = 0
    while found := ends.views.take():
        count += len(found)
    return count


@pytest.mark.parametrize("size", [64, 1024])
@pytest.mark.parametrize("give", [push, push_many, claim])
def test_records_go_in(benchmark: Any, give: Callable[[Ends, bytes], None], size: int) -> None:
    ends, record = Ends(), header_of(size) + bytes(size)

    def empty() -> None:
        ends.reader.drain()

    benchmark.pedantic(give, (ends, record), setup=empty, rounds=2000)
    assert ends.reader.take().count == RECORDS


@pytest.mark.parametrize("size", [64, 1024])
@pytest.mark.parametrize("get", [pop, take, views])
def test_records_come_out(benchmark: Any, get: Callable[[Ends], int], size: int) -> None:
    ends, record = Ends(), header_of(size) + bytes(size)

    def fill() -> None:
        push_many(ends, record)

    assert benchmark.pedantic(get, (ends,), setup=fill, rounds=2000) == RECORDS


def test_slots_go_in_and_come_out(benchmark: Any) -> None:
    memory = bytearray(shm.slots_bytes(SLOTS_CAPACITY, SLOT))
    shm.create_slots(memory, SLOT)
    writer, reader = shm.SlotWriter(memory, SLOT), shm.SlotReader(memory, SLOT)
    vector = np.zeros(SLOTS_BATCH, SLOT)

    def through() -> int:
        writer.push(vector)
        return len(reader.drain())

    assert benchmark(through) == SLOTS_BATCH


@pytest.mark.parametrize("trusted", [False, True])
def test_a_bell_is_rung_and_waited_for(benchmark: Any, trusted: bool) -> None:
    bell = shm.Doorbell.create(trusted=trusted)

    def both() -> bool:
        bell.ring()
        return bell.wait()

    assert benchmark(both)
    bell.close()


@pytest.fixture
def rings() -> Iterator[Rings]:
    made = Rings()
    yield made
    made.close()


@pytest.mark.parametrize("size", CAPACITIES)
def test_messages_one_way(benchmark: Any, rings: Rings, size: int) -> None:
    request = {"way": "ring", "size": size, "messages": max(20, 2_000_000 // (size + 200))}
    assert benchmark(rings.answer, request)["ns"] > 0


@pytest.mark.parametrize("way", ["ring", "wake"])
def test_round_trips(benchmark: Any, rings: Rings, way: str) -> None:
    request = {"way": way, "size": 64, "turns": 200}
    assert len(benchmark(rings.answer, request)["times_ns"]) == 200
