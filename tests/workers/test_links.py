"""Links: what does not fit waits on the supervisor's side, in order, and nothing is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest

from lockstep.engine.errors import RunStopped
from lockstep.engine.record import Kind, Outcome, TurnEnd, decode, encode, encode_end
from lockstep.engine.wire import RESULT_SLOT, FromEngine, StepAssembler, ToEngine
from lockstep.shm import RingReader, RingWriter
from lockstep.workers.links import (
    SLOTS_CAPACITY,
    AgentLink,
    EngineEnd,
    EngineLink,
    EngineMemory,
    RingPair,
    ring_slice_bytes,
)
from lockstep.workers.seat import Seat

RECORD_MAX = 1024


@pytest.fixture
def pair() -> Iterator[RingPair]:
    rings = RingPair.create(memoryview(bytearray(2 * ring_slice_bytes(RECORD_MAX))))
    yield rings
    rings.close()


@pytest.fixture
def engine_memory() -> Iterator[EngineMemory]:
    size = EngineMemory.slice_bytes(RECORD_MAX)
    memory = EngineMemory.create(memoryview(bytearray(size)), RECORD_MAX)
    yield memory
    memory.close()


def test_an_agent_that_does_not_read_gets_everything_later_in_order(pair: RingPair) -> None:
    link = AgentLink(pair, "a")
    records = [encode(Kind.MESSAGE, bytes([n % 256]) * 700, id=n) for n in range(200)]
    for record in records:
        link.send(record)  # Never blocks, whatever the ring holds.
    reader = RingReader(pair.down)
    got = b""
    while len(got) < sum(map(len, records)):
        got += reader.drain()
        pair.supervisor_bell.ring()
        link.drain()
    assert [record.id for record in decode(got)] == list(range(200))


def test_the_agent_is_rung_when_there_is_room_again(pair: RingPair) -> None:
    link, writer = AgentLink(pair, "a"), RingWriter(pair.up)
    writer.push(encode(Kind.READY))
    assert link.drain() == encode(Kind.READY)
    assert pair.agent_bell.clear()


def test_tickets_and_grants_keep_their_order_when_the_byte_ring_is_full(
    engine_memory: EngineMemory,
) -> None:
    link, end = EngineLink(engine_memory), EngineEnd(engine_memory)
    for n in range(100):
        link.send((ToEngine.TICKET, 0, n, 0, 0), encode(Kind.INFER, bytes(900), id=n))
        link.send((ToEngine.GRANT, 0, 0, n, 0))
    link.flush()
    slots: list[tuple[int, ...]] = []
    records = b""
    while len(slots) < 200:
        some, more = end.drain()
        slots += some.tolist()
        records += more
        tickets = sum(slot[0] == ToEngine.TICKET for slot in slots)
        assert len(list(decode(records))) >= tickets, "a ticket came before its record"
        link.drain()
    assert [s[2] if s[0] == ToEngine.TICKET else s[3] for s in slots] == [
        n for n in range(100) for _ in range(2)
    ]
    assert [record.id for record in decode(records)] == list(range(100))


def test_more_slots_than_the_ring_holds_wait_their_turn(engine_memory: EngineMemory) -> None:
    link, end = EngineLink(engine_memory), EngineEnd(engine_memory)
    count = SLOTS_CAPACITY * 2 + 7
    for n in range(count):
        link.send((ToEngine.GRANT, 0, 0, n, 0))
    link.flush()
    got: list[int] = []
    while len(got) < count:
        slots, _ = end.drain()
        got += slots["a"].tolist()
        link.drain()
    assert got == list(range(count))


def test_a_step_report_comes_out_as_it_went_in(engine_memory: EngineMemory) -> None:
    link, end = EngineLink(engine_memory), EngineEnd(engine_memory)
    rows = [(FromEngine.END, 0, 0, 5, 0, 3), (FromEngine.STEP, 0, 0, 0, 9, 0)]
    answer = encode(Kind.RESULT, b"text", id=1)
    end.report(np.array(rows, dtype=RESULT_SLOT), answer)
    (report,) = StepAssembler().feed(*link.drain())
    assert (report.step, report.answers[0].ticket, report.answers[0].record) == (9, 5, answer)


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
