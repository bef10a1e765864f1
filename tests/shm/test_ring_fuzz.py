"""A hostile peer scribbles: the answer is RingCorrupt or data that an independent parser agrees to.

Every case is made from one seed, named in the failure. `pytest -m nightly
tests/shm/test_ring_fuzz.py` tries 100,000 instead of some thousands.
"""

import random
import struct
from collections.abc import Callable

import pytest

from lockstep.shm import (
    Arena,
    Claim,
    Memory,
    RingCorrupt,
    RingFull,
    RingReader,
    RingViews,
    RingWriter,
    create_ring,
    ring_bytes,
)
from lockstep.shm.header import HEADER_BYTES, OFFSETS
from lockstep.shm.ring import KIND_PADDING

CASES = [
    pytest.param(3_000, id="3000"),
    pytest.param(100_000, id="100000", marks=pytest.mark.nightly),
]
SIZES = (0, 1, 7, 8, 31, 32, 33, 64, 127, 128, 129, 255, 256, 2**31, 2**32 - 8, 2**32 - 1)
CANARY = b"\xee" * 64


def parse(data: bytes, head: int, tail: int) -> tuple[list[bytes], bool]:
    """Records between the cursors, by the drawing alone, up to what makes no sense if there is any.

    Returns:
        The records, and whether all of it made sense.
    """
    capacity, records = len(data), list[bytes]()
    if head % 8 or not tail <= head <= tail + capacity:
        return records, False
    while tail < head:
        at = tail % capacity
        size, kind = struct.unpack_from("<IH", data, at)
        step = size + 7 & ~7
        if kind == KIND_PADDING:
            if size != capacity - at or tail + size > head:
                return records, False
        elif size < 32 or step > min(capacity - at, head - tail, capacity // 2):
            return records, False
        else:
            records.append(data[at : at + step])
        tail += step
    return records, True


def by_drain(reader: RingReader) -> list[bytes]:
    """All or nothing."""
    data = reader.drain()
    return [data] if data else []


def word(memory: Memory, name: str) -> int:
    return int(struct.unpack_from("=Q", memory, OFFSETS[name])[0])


def value_near(rng: random.Random, head: int, capacity: int) -> int:
    near = head + rng.randrange(-2 * capacity, 2 * capacity)
    far = rng.choice((0, 2**63 + head, 2**64 - 8, rng.getrandbits(64)))
    small = head + 8 * rng.randrange(-8, 8)
    return rng.choice((near, small, small, far)) % 2**64


def scribble(rng: random.Random, memory: bytearray, capacity: int) -> None:
    for _ in range(rng.randrange(1, 4)):
        what = rng.randrange(4)
        spot = HEADER_BYTES + 8 * rng.randrange(capacity // 8)
        if what == 0:
            head = struct.unpack_from("=Q", memory, OFFSETS["head"])[0]
            struct.pack_into("=Q", memory, OFFSETS["head"], value_near(rng, head, capacity))
        elif what == 1:
            kind = rng.choice((3, 3, KIND_PADDING))
            struct.pack_into("<IH", memory, spot, rng.choice(SIZES), kind)
        elif what == 2:
            gap = HEADER_BYTES + capacity - spot
            struct.pack_into("<IH", memory, spot, gap, KIND_PADDING)
        else:
            memory[spot : spot + 8] = rng.randbytes(8)


class Pair:
    """Two rings one behind the other, in use; what is between and behind them belongs to others."""

    def __init__(self, rng: random.Random, record: Callable[[bytes], bytes]) -> None:
        self.capacity = 1 << rng.randrange(6, 10)
        size = ring_bytes(self.capacity)
        self.whole = bytearray(size) + CANARY + bytearray(size) + CANARY
        view = memoryview(self.whole)
        self.memory, self.other = view[:size], view[size + 64 : 2 * size + 64]
        create_ring(self.memory)
        create_ring(self.other)
        self.writer, self.reader = RingWriter(self.memory), RingReader(self.memory)
        self.neighbours = RingWriter(self.other), RingReader(self.other)
        self.neighbours[0].push(record(b""))
        for _ in range(rng.randrange(1, 30)):
            self.writer.push_many(record(b"\x11" * rng.randrange(0, self.capacity // 2 - 31)))
            if rng.random() < 0.3:
                self.reader.drain(rng.randrange(self.capacity))
        self.reader.drain(0)  # The reader has seen this head.
        self.before = bytes(self.whole[size:])

    def data(self) -> bytes:
        return bytes(self.memory[HEADER_BYTES:])

    def others_are_as_before(self, record: Callable[[bytes], bytes]) -> bool:
        """Nothing but this ring was touched, and the neighbour's works."""
        same = bytes(self.whole[len(self.memory) :]) == self.before
        return same and self.neighbours[1].drain() == record(b"")


@pytest.mark.parametrize("cases", CASES)
def test_scribbled_ring_gives_corrupt_or_what_an_independent_parser_gives(  # type: ignore[no-untyped-def]
    cases: int, record
) -> None:
    outcomes = {"corrupt": 0, "data": 0}
    for seed in range(cases):
        rng = random.Random(seed)
        pair = Pair(rng, record)
        seen, tail = word(pair.memory, "head"), word(pair.memory, "tail")
        scribble(rng, pair.whole, pair.capacity)
        head = word(pair.memory, "head")
        records, sound = parse(pair.data(), head, tail) if head >= seen else ([], False)
        way = rng.choice((by_drain, RingReader.pop, RingViews))
        views, found = RingViews(pair.reader), list[bytes]()
        try:
            if way is by_drain:
                found = by_drain(pair.reader)
            elif way is RingViews:
                while taken := views.take():
                    found += [bytes(view) for view in taken]
            else:
                while one := pair.reader.pop():
                    found.append(one)
            corrupt = False
        except RingCorrupt:
            corrupt = True
            for again in (pair.reader.drain, pair.reader.pop, views.take):
                with pytest.raises(RingCorrupt):
                    again()
        assert corrupt != sound, f"seed {seed}"
        if way is RingViews:
            records = [one[: struct.unpack_from("<I", one)[0]] for one in records]
        if way is not by_drain:
            assert found == records, f"seed {seed}"
        elif sound:
            assert b"".join(found) == b"".join(records), f"seed {seed}"
        assert pair.others_are_as_before(record), f"seed {seed}"
        outcomes["corrupt" if corrupt else "data"] += 1
    assert min(outcomes.values()) > cases // 40, outcomes  # Both sides were really tried.


@pytest.mark.parametrize("cases", CASES)
def test_writer_beside_a_scribbled_tail_writes_into_free_room_of_its_own_ring_or_refuses(  # type: ignore[no-untyped-def]
    cases: int, record
) -> None:
    outcomes = {"corrupt": 0, "full": 0, "written": 0}
    for seed in range(cases):
        rng = random.Random(seed)
        pair = Pair(rng, record)
        head, tail = word(pair.memory, "head"), word(pair.memory, "tail")
        for name in rng.sample(("tail", "waits", "rings", "head"), rng.randrange(1, 3)):
            value = value_near(rng, tail, pair.capacity)
            struct.pack_into("=Q", pair.memory, OFFSETS[name], value)
        legal = {tail, word(pair.memory, "tail")}  # What was seen before, or what is there.
        one = record(b"\x22" * rng.randrange(0, pair.capacity // 2 - 31))
        size = struct.unpack_from("<I", one)[0]
        try:
            way = rng.randrange(3)
            if way == 0:
                pair.writer.push(one)
            elif way == 1:
                if not pair.writer.push_many(one):
                    raise RingFull
            else:
                with Claim(pair.writer, size) as room:
                    room[:] = one[:size]
            outcome = "written"
        except RingFull:
            outcome = "full"
        except RingCorrupt:
            outcome = "corrupt"
            with pytest.raises(RingCorrupt):
                pair.writer.push(record(b""))
        if outcome == "written":
            after = word(pair.memory, "head")
            assert any(after - at <= pair.capacity for at in legal if at <= head), f"seed {seed}"
            at = after % pair.capacity or pair.capacity
            assert pair.data()[at - len(one) : at] == one, f"seed {seed}"
        assert pair.others_are_as_before(record), f"seed {seed}"
        outcomes[outcome] += 1
    assert min(outcomes.values()) > cases // 40, outcomes


def test_reader_survives_a_process_that_scribbles_all_the_time(fork, record) -> None:  # type: ignore[no-untyped-def]
    capacity = 1024
    arena = Arena.create([ring_bytes(capacity)])
    memory = arena.slice(0)
    create_ring(memory)

    def hostile() -> None:
        rng = random.Random(3)
        while True:
            at = HEADER_BYTES + 8 * rng.randrange(capacity // 8)
            struct.pack_into("<IH", memory, at, rng.choice(SIZES), rng.choice((3, KIND_PADDING)))
            struct.pack_into("=Q", memory, OFFSETS["head"], 8 * rng.randrange(capacity // 4))

    child = fork(hostile)
    corrupt = good = 0
    while corrupt < 500 or good < 5:
        try:
            reader = RingReader(memory)
        except RingCorrupt:
            corrupt += 1
            struct.pack_into("=Q", memory, OFFSETS["tail"], 0)
            continue
        try:
            data = reader.drain()
            offset = 0
            while offset < len(data):  # What was judged is what was given.
                size, kind = struct.unpack_from("<IH", data, offset)
                assert 32 <= size <= len(data) - offset
                assert kind != KIND_PADDING
                offset += size + 7 & ~7
            assert offset == len(data) <= capacity
            good += 1
        except RingCorrupt:
            corrupt += 1
        reader.close()
        struct.pack_into("=Q", memory, OFFSETS["tail"], 0)
    child.kill()
    arena.close()
