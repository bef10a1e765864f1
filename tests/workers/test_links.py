"""Links: what does not fit waits on the supervisor's side, in order, and nothing is lost."""

from __future__ import annotations

import hashlib
import select
from collections.abc import Iterator

import pytest
from alone import alone

from lockstep.engine.errors import RunStopped
from lockstep.engine.record import (
    FLAG_ERROR,
    HEADER_BYTES,
    Kind,
    Outcome,
    TurnEnd,
    decode,
    encode,
    encode_end,
)
from lockstep.shm import Arena, RingReader, RingWriter, SharedDoorbell
from lockstep.shm.header import OFFSETS
from lockstep.workers.links import AgentEnd, AgentLink, RingPair, Rung, ring_slice_bytes
from lockstep.workers.seat import Seat

RECORD_MAX = 1024


@pytest.fixture
def pair() -> Iterator[RingPair]:
    bell = SharedDoorbell()
    rings = RingPair.create(memoryview(bytearray(2 * ring_slice_bytes(RECORD_MAX))), bell)
    yield rings
    rings.close()
    bell.close()


def test_an_agent_that_does_not_read_gets_everything_later_in_order(pair: RingPair) -> None:
    link = AgentLink(pair, "a")
    records = [encode(Kind.MESSAGE, bytes([n % 256]) * 700, id=n) for n in range(200)]
    for record in records:
        link.send(record)  # Never blocks, whatever the ring holds.
    reader = RingReader(pair.down)
    got = b""
    while len(got) < sum(map(len, records)):
        got += reader.drain()
        link.drain()
    assert [record.id for record in decode(got)] == list(range(200))


def test_an_agent_that_waits_for_room_is_rung_when_there_is_some(pair: RingPair) -> None:
    link, end = AgentLink(pair, "a"), AgentEnd(pair)
    records = encode(Kind.LOG, bytes(500)) * 20
    sent = end.push_many(records, 0)
    while end.push_many(records, sent) > sent:
        raise AssertionError("the ring took more than it had room for")
    assert link.drain() == records[:sent]
    assert pair.agent_bell.clear()
    assert end.push_many(records, sent) > sent


def test_an_agent_that_does_not_wait_for_room_is_not_rung(pair: RingPair) -> None:
    link, end = AgentLink(pair, "a"), AgentEnd(pair)
    for _ in range(3):
        assert end.push_many(encode(Kind.READY), 0) == HEADER_BYTES
        end.ring()
        assert link.drain() == encode(Kind.READY)
    assert not pair.agent_bell.clear()


def test_streams_larger_than_the_rings_pass_each_other_between_two_processes() -> None:
    # An agent process that waits for room and a supervisor that never does: a lost ring would be
    # a hang, which the test's own time-out ends.
    assert alone(BOTH_WAYS) == ("300 True True 0\n", "")


BOTH_WAYS = """
import mmap, select
from lockstep.engine.record import Kind, decode, encode, encode_wake
from lockstep.shm import SharedDoorbell
from lockstep.workers import spawn
from lockstep.workers.agent.channel import Inbox, RingChannel
from lockstep.workers.links import AgentEnd, AgentLink, RingPair, ring_slice_bytes

bell = SharedDoorbell()
pair = RingPair.create(memoryview(mmap.mmap(-1, 2 * ring_slice_bytes(1024))), bell)
link = AgentLink(pair, "a")
events = b"".join(encode(Kind.MESSAGE, bytes(n), id=n) for n in range(300))

def body():
    end = AgentEnd(pair)
    channel = RingChannel(end, end, end, end)
    inbox = Inbox(channel)
    for turn in range(3):
        wake = inbox.next()
        channel.send(wake.events)
    return 0

child = spawn.fork("a", body, pair.descriptors())
got = b""
for turn in range(3):
    link.send(encode_wake(turn, 0, 0, events, 300))
while len(got) < 3 * len(events):
    select.select([bell], [], [])
    bell.clear()
    got += link.drain()
ids = [record.id for record in decode(got)]
print(len(ids) // 3, got == 3 * events, ids == 3 * list(range(300)), child.reap())
"""


def test_agents_that_share_a_bell_are_found_by_their_counters() -> None:
    size = 2 * ring_slice_bytes(RECORD_MAX)
    arena = Arena.create([1, *[size] * 5])
    bell = SharedDoorbell()
    pairs = [RingPair.create(arena.slice(n + 1), bell) for n in range(5)]
    links = [AgentLink(pair, str(n)) for n, pair in enumerate(pairs)]
    ends = [AgentEnd(pair) for pair in pairs]
    rung = Rung(bell, arena.words(1, size // 2 + OFFSETS["rings"]))
    assert rung.take() == []
    for n in (3, 1, 3):
        ends[n].push_many(encode(Kind.READY, id=n), 0)
        ends[n].ring()
    assert select.select([bell], [], [], 0)[0] == [bell]
    assert rung.take() == [1, 3]
    assert [len(link.drain()) // HEADER_BYTES for link in links] == [0, 1, 0, 2, 0]
    assert rung.take() == [] and select.select([bell], [], [], 0)[0] == []
    # One that waits for room is found, too, though it published nothing.
    records = encode(Kind.LOG, bytes(900)) * 4
    sent = ends[2].push_many(records, 0)
    assert rung.take() == []
    assert ends[2].push_many(records, sent) == sent
    assert rung.take() == [2]
    links[2].drain()
    assert pairs[2].agent_bell.clear()


def test_an_agent_process_gets_the_ringing_end_of_the_shared_bell_only() -> None:
    bell = SharedDoorbell()
    pair = RingPair.create(memoryview(bytearray(2 * ring_slice_bytes(RECORD_MAX))), bell)
    kept = pair.descriptors()
    assert bell.fileno() not in kept and set(bell.ringing_descriptors()) <= set(kept)
    pair.close()
    bell.ring()  # It is everybody's: closing one pair leaves it open.
    assert bell.clear()
    bell.close()


def turn(seat: Seat, writer: RingWriter, records: bytes, **changes: object) -> None:
    """Publish a turn as an agent process does."""
    fields = {
        "turn": 0,
        "outcome": Outcome.BLOCKED,
        "fuel": 5,
        "count": len(list(decode(records))),
        "digest": hashlib.sha256(records).digest(),
        "reason": "",
    } | changes
    assert writer.push_many(records) == len(records)
    writer.push(encode_end(TurnEnd(**fields)))  # type: ignore[arg-type]


def test_a_turn_counts_when_its_end_arrives(pair: RingPair) -> None:
    seat, writer = Seat("a", AgentLink(pair, "a")), RingWriter(pair.up)
    records = encode(Kind.LOG, b"one") + encode(Kind.LOG, b"two")
    writer.push_many(records)
    assert seat.receive() == []
    end = TurnEnd(3, Outcome.RETURNED, 77, 2, hashlib.sha256(records).digest(), "")
    writer.push(encode_end(end))
    (whole,) = seat.receive()
    assert (whole.number, whole.fuel, whole.records) == (3, 77, records)
    assert seat.ended


@pytest.mark.parametrize("changes", [{"count": 2}, {"digest": bytes(32)}])
def test_a_turn_that_is_not_what_its_end_says_stops_the_run(
    pair: RingPair, changes: dict[str, object]
) -> None:
    seat, writer = Seat("a", AgentLink(pair, "a")), RingWriter(pair.up)
    turn(seat, writer, encode(Kind.LOG, b"one"), **changes)
    with pytest.raises(RunStopped, match="agent a: turn 0 arrived with 1 records"):
        seat.receive()


def test_an_accident_is_told_with_its_reason(pair: RingPair) -> None:
    seat, writer = Seat("a", AgentLink(pair, "a")), RingWriter(pair.up)
    writer.push(encode(Kind.ACCIDENT, b"MemoryError: no room"))
    with pytest.raises(RunStopped, match="agent a: accident: MemoryError: no room"):
        seat.receive()


def test_the_highest_progress_of_the_running_turn_is_kept(pair: RingPair) -> None:
    seat, writer = Seat("a", AgentLink(pair, "a")), RingWriter(pair.up)
    for turn_number, fuel in ((0, 10), (0, 30), (0, 20), (1, 90), (7, 90)):
        writer.push(encode(Kind.PROGRESS, id=turn_number, item=fuel))
    assert seat.receive() == []
    assert seat.progress == (0, 30)
    seat.progress = None  # Read. What was known before comes no more.
    writer.push(encode(Kind.PROGRESS, id=0, item=30))
    assert seat.receive() == [] and seat.progress is None
    writer.push(encode(Kind.PROGRESS, id=0, item=31))
    assert seat.receive() == [] and seat.progress == (0, 31)


def test_progress_is_over_with_its_turn_and_no_part_of_its_records(pair: RingPair) -> None:
    seat, writer = Seat("a", AgentLink(pair, "a")), RingWriter(pair.up)
    records = encode(Kind.LOG, b"one") + encode(Kind.LOG, b"two")
    writer.push(encode(Kind.PROGRESS, id=0, item=10))
    writer.push(records[:40])
    writer.push(encode(Kind.PROGRESS, id=0, item=20))
    writer.push(records[40:])
    end = TurnEnd(0, Outcome.BLOCKED, 77, 2, hashlib.sha256(records).digest(), "")
    writer.push(encode_end(end))
    (whole,) = seat.receive()
    assert (whole.records, seat.progress) == (records, None)
    writer.push(encode(Kind.PROGRESS, id=1, item=5))
    assert seat.receive() == [] and seat.progress == (1, 5)


@pytest.mark.parametrize(
    "record",
    [
        encode(Kind.PROGRESS, b"x", id=0, item=5),
        encode(Kind.PROGRESS, id=0, item=5, flags=FLAG_ERROR),
        encode(Kind.PROGRESS, id=0, item=5, peer=3),
    ],
)
def test_a_malformed_progress_stops_the_run(pair: RingPair, record: bytes) -> None:
    seat, writer = Seat("a", AgentLink(pair, "a")), RingWriter(pair.up)
    writer.push(record)
    with pytest.raises(RunStopped, match="agent a: PROGRESS with"):
        seat.receive()


def test_a_record_that_no_agent_sends_stops_the_run(pair: RingPair) -> None:
    seat, writer = Seat("a", AgentLink(pair, "a")), RingWriter(pair.up)
    writer.push(encode(Kind.WAKE))
    with pytest.raises(RunStopped, match="sent a record of kind 65"):
        seat.receive()


def test_a_turn_of_very_many_records_is_taken_in_without_copying_it_each_time(
    pair: RingPair,
) -> None:
    # Quadratic intake took minutes for this; the test's own time-out would end it.
    seat, writer = Seat("a", AgentLink(pair, "a")), RingWriter(pair.up)
    one = encode(Kind.LOG, b"x")
    count = 60_000
    sent, records = 0, one * count
    while sent < len(records):
        sent = writer.push_many(records, sent)
        assert seat.receive() == []
    end = TurnEnd(0, Outcome.BLOCKED, 1, count, hashlib.sha256(records).digest(), "")
    writer.push(encode_end(end))
    (whole,) = seat.receive()
    assert whole.records == records


def test_a_new_process_finds_empty_rings_and_a_bell_that_nobody_rang(pair: RingPair) -> None:
    link, end = AgentLink(pair, "a"), AgentEnd(pair)
    link.send(encode(Kind.MESSAGE, b"for the old one"))
    end.push_many(encode(Kind.LOG, b"half a turn"), 0)
    end.ring()
    link.close()
    link.close()  # Idempotent.
    pair.renew()
    link, end = AgentLink(pair, "a"), AgentEnd(pair)
    assert (end.drain(), link.drain()) == (b"", b"")
    assert not end.wait(0)
    link.send(encode(Kind.MESSAGE, b"for the new one"))
    assert end.wait(0)
    assert [record.payload for record in decode(end.drain())] == [b"for the new one"]


def test_what_arrived_is_counted_in_bytes(pair: RingPair) -> None:
    link, end = AgentLink(pair, "a"), AgentEnd(pair)
    assert link.received_bytes == 0
    record = encode(Kind.LOG, b"one")
    end.push_many(record * 2, 0)
    assert link.received_bytes == 0
    link.take()
    assert link.received_bytes == 2 * len(record)


def test_a_counter_that_begins_anew_hides_no_ring_and_is_none() -> None:
    size = ring_slice_bytes(RECORD_MAX)
    arena = Arena.create([64, 2 * size, 2 * size])
    bell = SharedDoorbell()
    pairs = [RingPair.create(arena.slice(n + 1), bell) for n in range(2)]
    rung = Rung(bell, arena.words(1, size + OFFSETS["rings"]))
    AgentEnd(pairs[1]).ring()
    assert rung.take() == [1]
    pairs[1].renew()
    rung.renew(1)
    assert rung.take() == []
    AgentEnd(pairs[1]).ring()  # Its first ring: as many as were seen of the old process.
    assert rung.take() == [1]
    for each in pairs:
        each.close()
    bell.close()


def test_of_a_process_that_is_gone_only_whole_turns_count(pair: RingPair) -> None:
    seat, writer = Seat("a", AgentLink(pair, "a")), RingWriter(pair.up)
    writer.push(encode(Kind.READY))
    turn(seat, writer, encode(Kind.LOG, b"whole"))
    writer.push(encode(Kind.LOG, b"a part of the next"))
    writer.push(encode(Kind.PROGRESS, id=1, item=7))
    assert [each.number for each in seat.receive()] == [0]
    assert seat.newest is not None and seat.newest.fuel == 5
    seat.link.close()
    pair.renew()
    seat.renew(AgentLink(pair, "a"), 0)
    assert not seat.loaded and seat.progress is None and seat.newest is not None
    writer = RingWriter(pair.up)
    writer.push(encode(Kind.PROGRESS, id=0, item=3))
    assert seat.receive() == [] and seat.progress == (0, 3)
    turn(seat, writer, encode(Kind.LOG, b"whole"))
    assert [each.records for each in seat.receive()] == [encode(Kind.LOG, b"whole")]


@pytest.mark.parametrize(("first", "counts"), [(3, True), (2, False), (4, False)])
def test_progress_of_the_turn_that_a_new_process_begins_with_counts(
    pair: RingPair, first: int, counts: bool
) -> None:
    seat = Seat("a", AgentLink(pair, "a"))
    seat.link.close()
    pair.renew()
    seat.renew(AgentLink(pair, "a"), 3)
    RingWriter(pair.up).push(encode(Kind.PROGRESS, id=first, item=9))
    assert seat.receive() == []
    assert (seat.progress == (first, 9)) is counts
