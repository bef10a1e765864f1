"""A hostile peer scribbles: the answer is RingCorrupt or data that an independent parser agrees to.

Every case is made from one seed, named in the failure.
"""

import random
import struct

import pytest

from lockstep.shm import Arena, RingCorrupt, RingReader, RingWriter, create_ring, ring_bytes
from lockstep.shm.header import HEADER_BYTES, OFFSETS
from lockstep.shm.ring import KIND_PADDING

CASES = 4000
SIZES = (0, 1, 7, 8, 31, 32, 33, 64, 127, 128, 129, 255, 256, 2**31, 2**32 - 8, 2**32 - 1)


def reference(data: bytes, head: int, tail: int) -> bytes | None:
    """What lies between the cursors, by the drawing alone; None if it makes no sense."""
    capacity = len(data)
    if head % 8 or not tail <= head <= tail + capacity:
        return None
    taken = b""
    while tail < head:
        at = tail % capacity
        size, kind = struct.unpack_from("<IH", data, at)
        step = size + 7 & ~7
        if kind == KIND_PADDING:
            if size != capacity - at or tail + size > head:
                return None
        elif size < 32 or step > min(capacity - at, head - tail, capacity // 2):
            return None
        else:
            taken += data[at : at + step]
        tail += step
    return taken


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


@pytest.mark.parametrize("block", range(4))
def test_scribbled_ring_gives_corrupt_or_what_an_independent_parser_gives(block, record) -> None:  # type: ignore[no-untyped-def]
    outcomes = {"corrupt": 0, "data": 0}
    for seed in range(block * CASES // 4, (block + 1) * CASES // 4):
        rng = random.Random(seed)
        capacity = 1 << rng.randrange(6, 10)
        # What lies behind the ring belongs to somebody else and must never be read.
        whole = bytearray(ring_bytes(capacity)) + b"\xee" * 64
        memory = memoryview(whole)[: ring_bytes(capacity)]
        create_ring(memory)
        writer, reader = RingWriter(memory), RingReader(memory)
        tail = 0
        for _ in range(rng.randrange(1, 30)):
            size = rng.randrange(0, capacity // 2 - 31)
            writer.push_many(record(b"\x11" * size))
            if rng.random() < 0.3:
                reader.drain(rng.randrange(capacity))
        tail = struct.unpack_from("=Q", whole, OFFSETS["tail"])[0]
        seen = struct.unpack_from("=Q", whole, OFFSETS["head"])[0]
        reader.drain(0)  # The reader has seen this head.
        tail = struct.unpack_from("=Q", whole, OFFSETS["tail"])[0]
        scribble(rng, whole, capacity)
        head = struct.unpack_from("=Q", whole, OFFSETS["head"])[0]
        data = bytes(whole[HEADER_BYTES : HEADER_BYTES + capacity])
        expected = reference(data, head, tail) if head >= seen else None
        try:
            found: bytes | None = reader.drain()
        except RingCorrupt:
            found = None
            with pytest.raises(RingCorrupt):
                reader.drain()
        assert found == expected, f"seed {seed}"
        outcomes["corrupt" if found is None else "data"] += 1
        reader.close()
        writer.close()
        memory.release()
    assert min(outcomes.values()) > CASES // 40, outcomes  # Both sides were really tried.


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
