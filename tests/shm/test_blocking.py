"""Blocking and timed sending and receiving: room, records, time, death, each told apart."""

import os
import signal
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from lockstep.shm import (
    Batch,
    Doorbell,
    EventDoorbell,
    Inlet,
    Memory,
    Outlet,
    PeerDied,
    RingClosed,
    RingCorrupt,
    RingFull,
    RingReader,
    RingWriter,
    WatchedBell,
    create_ring,
    ring_bytes,
)
from lockstep.shm.header import OFFSETS

CAPACITY = 16_384


class Both(NamedTuple):
    """A ring and its bells; each process makes the side that it is."""

    memory: Memory
    filled: Doorbell
    drained: Doorbell

    def outlet(self) -> Outlet:
        return Outlet(RingWriter(self.memory, "to agent 3"), self.filled, self.drained)

    def inlet(self) -> Inlet:
        return Inlet(RingReader(self.memory, "from agent 3"), self.filled, self.drained)


@pytest.fixture
def both() -> Iterator[Both]:
    memory = bytearray(ring_bytes(CAPACITY))
    create_ring(memory)
    made = Both(memory, Doorbell.create(), Doorbell.create())
    yield made
    made.filled.close()
    made.drained.close()


@pytest.fixture
def shared(shared_memory_of: Callable[[int], Memory]) -> Iterator[Both]:
    memory = shared_memory_of(ring_bytes(CAPACITY))
    create_ring(memory)
    made = Both(memory, Doorbell.create(), Doorbell.create())
    yield made
    made.filled.close()
    made.drained.close()


def header(payload_bytes: int) -> bytes:
    return struct.pack("<IHHQQII", 32 + payload_bytes, 3, 0, 0, 0, 0, 0)


def payload(number: int) -> bytes:
    """Small and large ones in turn: joined to their header, or filled in behind it."""
    return struct.pack("<I", number) * (1 + number % 7 * (300 if number % 11 == 0 else 3))


@pytest.mark.parametrize("way", ["one by one", "in batches"])
def test_sides_that_wait_for_one_another_lose_nothing(  # type: ignore[no-untyped-def]
    fork, shared: Both, way: str
) -> None:
    total = 5000

    def write() -> None:
        outlet = shared.outlet()
        batch = Batch(outlet, 3000)
        send = batch.add if way == "in batches" else outlet.send
        for number in range(total):
            body = payload(number)
            send(header(len(body)), body)
        batch.flush()

    child = fork(write)
    inlet, number = shared.inlet(), 0
    while number < total:
        for view in inlet.receive():
            assert view[32:] == payload(number)
            number += 1
    assert child.join() == 0
    inlet._reader.close()


def test_many_records_go_out_in_as_many_pieces_as_it_takes(fork, shared: Both, record) -> None:  # type: ignore[no-untyped-def]
    records = b"".join(record(struct.pack("<I", number)) for number in range(4000))
    child = fork(lambda: shared.outlet().send_many(records))
    inlet, got = shared.inlet(), list[int]()
    while len(got) < 4000:
        got += [struct.unpack_from("<I", view, 32)[0] for view in inlet.receive()]
    assert got == list(range(4000))
    assert child.join() == 0
    inlet._reader.close()


def test_batch_is_seen_and_rung_for_when_it_is_full_or_flushed(both: Both, record) -> None:  # type: ignore[no-untyped-def]
    inlet, batch = both.inlet(), Batch(both.outlet(), gathered_bytes_max=100)
    seen = []
    for number in range(7):
        batch.add(record(bytes([number]))[:32], bytes([number]))
        seen.append([view[32] for view in inlet.receive(0)])
    assert seen == [[], [], [0, 1], [], [2, 3], [], [4, 5]]
    batch.flush()
    assert [view[32] for view in inlet.receive(0)] == [6]
    assert both.filled.clear()
    batch.flush()
    assert not both.filled.clear()


def test_large_records_of_a_batch_keep_their_place_and_are_rung_for_together(  # type: ignore[no-untyped-def]
    both: Both, record
) -> None:
    batch, rung = Batch(both.outlet(), unrung_bytes_max=12_000), []
    for body in (b"small", bytes(5000), b"small", bytes(5000), b"too", bytes(4999), bytes(5001)):
        batch.add(header(len(body)), body)
        rung.append(both.filled.clear())
        if len(body) > 4998:
            both.inlet().receive(0)
    assert rung == [False, True, False, True, False, True, False]
    batch.flush()
    assert both.filled.clear()


def test_records_of_a_batch_are_not_held_back_by_their_size(both: Both, record) -> None:  # type: ignore[no-untyped-def]
    inlet, batch = both.inlet(), Batch(both.outlet(), gathered_bytes_max=100)
    for one in (record(b"small"), record(bytes(200)), record(b"last")):
        batch.add(one)
    batch.flush()
    assert [len(view) for view in inlet.receive(0)] == [37, 232, 36]


def test_full_ring_is_refused_when_the_time_is_over_and_the_reader_was_told(both: Both) -> None:
    outlet, inlet = both.outlet(), both.inlet()
    body = bytes(8000)
    outlet.send(header(len(body)), body)
    outlet.send(header(len(body)), body)
    for refused in (body, bytes(1000)):
        with pytest.raises(RingFull, match=r"to agent 3: no room for .* bytes in time"):
            outlet.send(header(len(refused)), refused, timeout_s=0.01)
    assert outlet.send_many(header(1000) + bytes(1000), timeout_s=0) == 0
    assert len(inlet.receive()) == 1
    assert both.drained.clear()  # It has said that it waits, and hears of the room.
    outlet.send(header(1000), bytes(1000), timeout_s=0)
    assert [len(view) for view in inlet.receive() + inlet.receive()] == [8032, 1032]
    assert not both.drained.clear()


def test_writer_whose_wish_was_heard_before_there_was_room_wishes_again(fork, shared: Both) -> None:  # type: ignore[no-untyped-def]
    body = bytes(8000)
    outlet, reader = shared.outlet(), RingReader(shared.memory)
    outlet.send(header(len(body)), body)
    outlet.send(header(len(body)), body)
    shared.filled.clear()

    def answer_too_early_and_drain_then() -> None:
        shared.filled.wait()
        assert reader.awaited()
        shared.drained.ring()  # What it took lay before the writer's last look: no room by this.
        shared.filled.wait()
        assert reader.awaited()
        assert len(reader.drain()) == 2 * 8032
        shared.drained.ring()

    child = fork(answer_too_early_and_drain_then)
    outlet.send(header(len(body)), body)
    assert child.join() == 0
    assert len(RingReader(shared.memory).pop()) == 8032
    reader.close()


def test_reader_that_is_rung_for_room_alone_answers_and_waits_on(
    fork, shared: Both, record
) -> None:  # type: ignore[no-untyped-def]
    writer = RingWriter(shared.memory)

    def read() -> None:
        (view,) = shared.inlet().receive()
        assert view[32:] == b"x"

    child = fork(read)
    for _ in range(50):
        writer.announce(waiting=True)
        shared.filled.ring()
        assert shared.drained.wait()
    writer.push(record(b"x"))
    shared.filled.ring()
    assert child.join() == 0
    writer.close()


def test_nothing_comes_when_the_time_is_over(both: Both, record) -> None:  # type: ignore[no-untyped-def]
    inlet = both.inlet()
    assert inlet.receive(0) == []
    both.filled.ring()  # For nothing.
    assert inlet.receive(0.01) == []
    both.outlet().send(record(b"x"))
    assert [bytes(view[32:]) for view in inlet.receive(3600)] == [b"x"]


def test_closed_and_corrupt_are_not_taken_for_full_or_dead(both: Both, record) -> None:  # type: ignore[no-untyped-def]
    writer, reader = RingWriter(both.memory), RingReader(both.memory)
    outlet = Outlet(writer, both.filled, both.drained)
    inlet = Inlet(reader, both.filled, both.drained)
    outlet.send(record(b""))
    struct.pack_into("=Q", both.memory, OFFSETS["head"], 2**40)
    with pytest.raises(RingCorrupt):
        inlet.receive()
    writer.close()
    with pytest.raises(RingClosed):
        outlet.send(record(b""))
    reader.close()
    with pytest.raises(RingCorrupt):  # Why it was given up stays the answer.
        inlet.receive()


def test_reader_gets_all_that_a_dead_writer_published_and_then_hears_of_its_death(  # type: ignore[no-untyped-def]
    fork, shared: Both, record
) -> None:
    def write() -> None:
        writer = RingWriter(shared.memory)
        for number in range(50):
            writer.push(record(bytes([number])))
        os.kill(os.getpid(), signal.SIGKILL)  # Before it rings.

    child = fork(write)
    life = os.pidfd_open(child.pid)
    reader = RingReader(shared.memory)
    inlet = Inlet(reader, WatchedBell(shared.filled, life), shared.drained)
    got = list[int]()
    with pytest.raises(PeerDied):
        while True:
            got += [view[32] for view in inlet.receive()]
    assert got == list(range(50))
    with pytest.raises(PeerDied):
        inlet.receive(3600)
    assert child.join() == -signal.SIGKILL
    os.close(life)
    reader.close()


def test_writer_that_waits_for_room_hears_of_its_readers_death(fork, shared: Both, record) -> None:  # type: ignore[no-untyped-def]
    child = fork(signal.pause)
    life = os.pidfd_open(child.pid)
    writer = RingWriter(shared.memory)
    outlet = Outlet(writer, shared.filled, WatchedBell(shared.drained, life))
    while writer.push_many(record(bytes(64))):
        pass
    with pytest.raises(RingFull):
        outlet.send(record(bytes(64)), timeout_s=0.01)  # It lives, and does not read.
    child.kill()
    with pytest.raises(PeerDied):
        outlet.send(record(bytes(64)))
    os.close(life)
    writer.close()


def test_rings_of_the_dead_are_heard_before_their_death(fork) -> None:  # type: ignore[no-untyped-def]
    bell = Doorbell.create()
    child = fork(bell.ring)
    life = os.pidfd_open(child.pid)
    assert child.join() == 0
    watched = WatchedBell(bell, life)
    assert watched.wait()
    with pytest.raises(PeerDied):
        watched.wait(3600)
    watched.ring()
    assert watched.wait(0)
    assert not watched.wait(0)
    watched.close()
    with pytest.raises(RingClosed):
        bell.ring()
    os.close(life)


@pytest.mark.interpreted
def test_a_last_ring_that_comes_with_the_death_is_heard_first() -> None:
    life, last = os.pipe()

    class Late(EventDoorbell):
        """Rung, and its ringer gone, right behind the first look."""

        def clear(self) -> bool:
            nonlocal last
            found = super().clear()
            if last >= 0:
                self.ring()
                os.close(last)
                last = -1
            return found

    watched = WatchedBell(Late(), life)
    assert watched.wait()
    with pytest.raises(PeerDied):
        watched.wait()
    watched.close()
    os.close(life)
