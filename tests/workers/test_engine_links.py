"""Engine links: slots and records keep their order, whichever ring is full."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from alone import alone

from lockstep.engine.record import Kind, decode, encode
from lockstep.engine.wire import RESULT_SLOT, FromEngine, StepAssembler, ToEngine
from lockstep.workers.engine_links import SLOTS_CAPACITY, EngineEnd, EngineLink, EngineMemory

RECORD_MAX = 1024


@pytest.fixture
def engine_memory() -> Iterator[EngineMemory]:
    size = EngineMemory.slice_bytes(RECORD_MAX)
    memory = EngineMemory.create(memoryview(bytearray(size)), RECORD_MAX)
    yield memory
    memory.close()


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


def test_neither_side_rings_for_room_that_nobody_waits_for(engine_memory: EngineMemory) -> None:
    link, end = EngineLink(engine_memory), EngineEnd(engine_memory)
    link.send((ToEngine.GRANT, 0, 0, 1, 0))
    link.flush()
    assert len(end.drain()[0]) == 1
    assert not engine_memory.supervisor_bell.clear()
    rows = [(FromEngine.STEP, 0, 0, 0, 9, 0)]
    end.report(np.array(rows, dtype=RESULT_SLOT), b"")
    assert len(link.drain()[0]) == 1
    assert not engine_memory.engine_bell.clear()


def test_a_report_larger_than_the_rings_gets_through_while_tickets_wait() -> None:
    # Both sides are short of room at once; a lost ring would be a hang.
    assert alone(ENGINE_SHORT_OF_ROOM) == ("9000 300 9000 300 0\n", "")


ENGINE_SHORT_OF_ROOM = """
import mmap, select
import numpy as np
from lockstep.engine.record import Kind, decode, encode
from lockstep.engine.wire import RESULT_SLOT, FromEngine, ToEngine
from lockstep.workers import spawn
from lockstep.workers.engine_links import EngineEnd, EngineLink, EngineMemory

memory = EngineMemory.create(memoryview(mmap.mmap(-1, EngineMemory.slice_bytes(1024))), 1024)
link = EngineLink(memory)
record = encode(Kind.RESULT, bytes(900))

def body():
    end = EngineEnd(memory)
    slots = np.array([(FromEngine.STEP, 0, 0, 0, n, 0) for n in range(9000)], dtype=RESULT_SLOT)
    end.wait()
    end.report(slots, record * 300)
    count, records = 0, b""
    while count < 9000 or len(records) < 300 * len(record):
        more, some = end.drain()
        count, records = count + len(more), records + some
        if not len(more) and not some:
            end.wait()
    end.report(slots[:1], encode(Kind.RESULT, b"%d %d" % (count, len(list(decode(records))))))
    return 0

child = spawn.fork("engine", body, memory.descriptors())
for n in range(9000):
    link.send((ToEngine.GRANT, 0, 0, n, 0), record if n < 300 else b"")
link.flush()
count, records = 0, b""
while count < 9001:
    select.select([memory.supervisor_bell], [], [])
    more, some = link.drain()
    count, records = count + len(more), records + some
answers = list(decode(records))
print(count - 1, len(answers) - 1, answers[-1].payload.decode(), child.reap())
"""


def test_a_step_report_comes_out_as_it_went_in(engine_memory: EngineMemory) -> None:
    link, end = EngineLink(engine_memory), EngineEnd(engine_memory)
    rows = [(FromEngine.END, 0, 0, 5, 0, 3), (FromEngine.STEP, 0, 0, 0, 9, 0)]
    answer = encode(Kind.RESULT, b"text", id=1)
    end.report(np.array(rows, dtype=RESULT_SLOT), answer)
    (report,) = StepAssembler().feed(*link.drain())
    assert (report.step, report.answers[0].ticket, report.answers[0].record) == (9, 5, answer)
