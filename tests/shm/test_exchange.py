"""The exchange: the bytes of ring and bell, in a straight line, and what it leaves to them."""

import mmap
import struct

import pytest

from lockstep import shm
from lockstep.shm.cursor import STRONG
from lockstep.shm.header import OFFSETS

pytestmark = pytest.mark.skipif(not STRONG, reason="cursors need a fence: it is never simple")

CAPACITY = 1024


def record(size: int, fill: int = 1) -> bytes:
    """One record of ``size`` bytes."""
    return struct.pack("<IH", size, 1) + bytes([fill]) * (size - 6)


class Pair:
    """Both sides of two rings in one process: one has an exchange, the other has the parts."""

    def __init__(self) -> None:
        size = shm.ring_bytes(CAPACITY)
        self.to, self.back = (memoryview(bytearray(size)) for _ in range(2))
        for memory in (self.to, self.back):
            shm.create_ring(memory)
        self.bell, self.peer_bell = shm.Doorbell.create(), shm.Doorbell.create()
        self.reader, self.writer = shm.RingReader(self.back), shm.RingWriter(self.to)
        self.exchange = shm.Exchange(self.reader, self.writer, self.bell, self.peer_bell)
        self.peer_reader, self.peer_writer = shm.RingReader(self.to), shm.RingWriter(self.back)

    def answer(self, records: bytes) -> None:
        assert self.peer_writer.push_many(records) == len(records)
        self.bell.ring()

    def put(self, memory: memoryview, name: str, value: int) -> None:
        memory[OFFSETS[name] : OFFSETS[name] + 8] = struct.pack("=Q", value)

    def word(self, memory: memoryview, name: str) -> int:
        return int.from_bytes(memory[OFFSETS[name] : OFFSETS[name] + 8], "little")


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_what_is_sent_is_published_counted_and_rung(pair: Pair) -> None:
    assert pair.exchange.send(record(40) + record(48))
    assert pair.peer_bell.clear()
    assert pair.word(pair.to, "rings") == 1
    assert pair.peer_reader.drain() == record(40) + record(48)


def test_what_came_is_taken_whole(pair: Pair) -> None:
    pair.answer(record(40) + record(48))
    assert pair.exchange.receive() == record(40) + record(48)
    assert pair.peer_writer.push_many(record(512)) == 512  # The room is there again.


def test_it_may_be_mixed_with_reader_and_writer_in_any_order(pair: Pair) -> None:
    """Over the end of both rings, many times; what is not simple goes the ordinary way."""
    sent, straight = b"", 0
    for number in range(300):
        data = record(32 + 8 * (number % 40), number % 250) * (1 + number % 2)
        if number % 3 and pair.exchange.send(data):
            straight += 1
        else:
            assert pair.writer.push_many(data) == len(data)
        pair.answer(data)
        taken = pair.exchange.receive() if number % 5 else b""
        assert (taken or pair.reader.drain()) == data
        sent += data
        assert pair.peer_reader.drain() == data
    assert straight > 100


def test_waiting_ends_when_something_comes_and_not_before(fork, pair: Pair) -> None:  # type: ignore[no-untyped-def]
    shared = memoryview(mmap.mmap(-1, shm.ring_bytes(CAPACITY)))
    shm.create_ring(shared)
    exchange = shm.Exchange(shm.RingReader(shared), pair.writer, pair.bell, pair.peer_bell)
    pair.bell.ring()  # For nothing.

    def respond() -> None:
        shm.RingWriter(shared).push(record(40))
        pair.bell.ring()

    child = fork(respond)
    assert exchange.receive() == record(40)
    assert child.join() == 0


def test_without_room_in_one_piece_nothing_is_done(pair: Pair) -> None:
    assert pair.exchange.send(record(512))
    assert pair.exchange.send(record(504))
    assert not pair.exchange.send(record(32))  # 8 bytes are left.
    assert pair.peer_reader.drain() == record(512) + record(504)
    assert not pair.exchange.send(record(32))  # The room is behind the end.
    assert pair.writer.push_many(record(32)) == 32
    assert pair.peer_reader.drain() == record(32)


@pytest.mark.parametrize("tail", [1 << 63, 1000, 12, (1 << 64) - 8])
def test_a_scribbled_tail_is_left_to_the_writer_to_refuse(pair: Pair, tail: int) -> None:
    assert pair.exchange.send(record(512)) and pair.exchange.send(record(480))
    pair.put(pair.to, "tail", tail)  # It matters now: by the tail that was seen, 32 bytes are left.
    assert not pair.exchange.send(record(40))
    with pytest.raises(shm.RingCorrupt):
        pair.writer.push_many(record(40))
    pair.put(pair.to, "tail", 0)
    assert not pair.exchange.send(record(40))  # Given up for good.


@pytest.mark.parametrize("head", [1 << 63, 44, 12, CAPACITY + 8, (1 << 64) - 8])
def test_a_scribbled_head_is_left_to_the_reader_to_refuse(pair: Pair, head: int) -> None:
    pair.put(pair.back, "head", head)
    assert pair.exchange.receive() == b""
    with pytest.raises(shm.RingCorrupt):
        pair.reader.drain()
    assert pair.exchange.receive() == b""


def test_a_head_that_went_back_does_not_make_it_wait(pair: Pair) -> None:
    pair.answer(record(40) + record(40))
    assert pair.reader.drain(bytes_max=40) == record(40)
    pair.put(pair.back, "head", 40)
    assert pair.exchange.receive() == b""
    with pytest.raises(shm.RingCorrupt):
        pair.reader.drain()


@pytest.mark.parametrize("size", [0, 31, 48, 1 << 31])
def test_a_scribbled_size_is_left_to_the_reader_to_refuse(pair: Pair, size: int) -> None:
    pair.answer(record(40))
    start = shm.ring_bytes(CAPACITY) - CAPACITY
    pair.back[start : start + 4] = struct.pack("<I", size)
    assert pair.exchange.receive() == b""
    with pytest.raises(shm.RingCorrupt):
        pair.reader.drain()


@pytest.mark.parametrize("at", [0, 40])
@pytest.mark.parametrize("size", [0, 31, 56, 1 << 31])
def test_a_scribbled_size_in_a_pair_is_left_to_the_reader_to_refuse(
    pair: Pair, at: int, size: int
) -> None:
    pair.answer(record(40) + record(48))
    start = shm.ring_bytes(CAPACITY) - CAPACITY + at
    pair.back[start : start + 4] = struct.pack("<I", size)
    assert pair.exchange.receive() == b""
    with pytest.raises(shm.RingCorrupt):
        pair.reader.drain()


@pytest.mark.parametrize("at", [0, 40])
def test_padding_in_a_pair_is_left_to_the_reader_to_refuse(pair: Pair, at: int) -> None:
    pair.answer(record(40) + record(48))
    start = shm.ring_bytes(CAPACITY) - CAPACITY + at
    pair.back[start + 4 : start + 6] = b"\xff\xff"
    assert pair.exchange.receive() == b""
    with pytest.raises(shm.RingCorrupt):
        pair.reader.drain()


def test_a_closed_side_is_left_to_itself(pair: Pair) -> None:
    pair.writer.close()
    pair.reader.close()
    assert not pair.exchange.send(record(40))
    assert pair.exchange.receive() == b""
