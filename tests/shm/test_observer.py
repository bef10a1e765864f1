"""The reading side of the board: whole slots or the last whole ones, never torn ones."""

import signal
import struct
from collections.abc import Iterator

import pytest

from lockstep.shm import (
    AgentStatus,
    Board,
    BoardReader,
    BoardRefused,
    Doorbell,
    EngineStatus,
    Segment,
    SupervisorStatus,
    create,
    cursor,
    next_name,
    observer,
)


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(next_name(), agents=3)
    yield made
    made.close()


@pytest.fixture
def reader(board: Board) -> Iterator[BoardReader]:
    attached = BoardReader.attach(board.name)
    yield attached
    attached.close()


def test_snapshot_shows_all_slots(board: Board, reader: BoardReader) -> None:
    board.supervisor.update(pid=1, start_time=2, state=3)
    board.engine.update(pid=4, state=5, step=-1, rows=6, tickets_waiting=7, tokens=8)
    board.engine.update(tokens_per_s=9, at_us=10)
    board.agent(1).update(
        name="b", state=9, pid=10, step=11, micro=12, turns=13, fuel=14, stall_us=15
    )
    board.agent(1).update(mailbox=16, requests=17)
    shown = reader.snapshot()
    assert shown.supervisor == SupervisorStatus(1, 2, 3)
    assert shown.engine == EngineStatus(4, 5, 9, -1, 6, 7, 8, 10)
    assert shown.agents[0] == AgentStatus("", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert shown.agents[1] == AgentStatus("b", 1, 9, 10, 11, 12, 13, 14, 15, 16, 17)
    assert [agent.index for agent in shown.agents] == [0, 1, 2]
    assert shown.stale == ()


def test_board_without_agents_can_be_read() -> None:
    board = Board.create(next_name(), 0)
    reader = BoardReader.attach(board.name)
    assert reader.snapshot().agents == ()
    reader.close()
    board.close()


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 5, "magic is 0x5, expected 0x"),
        (8, 0, "not ready yet"),
        (8, 2, "version is 0x2, expected 0x3"),
        (16, 64, "size is 0x40, expected 0x300"),
        (24, 4, "4 agents do not make 768 bytes"),
        (24, 2**64 - 1, "agents do not make 768 bytes"),
    ],
)
def test_wrong_header_is_refused_and_the_board_untouched(
    board: Board, offset: int, value: int, message: str
) -> None:
    memory = board._segment.memory
    struct.pack_into("=Q", memory, offset, value)
    before = bytes(memory)
    with pytest.raises(BoardRefused, match=message):
        BoardReader.attach(board.name)
    assert bytes(memory) == before


@pytest.mark.parametrize(("size", "message"), [(16, "16 bytes, a board has"), (4096, "not ready")])
def test_segment_that_is_no_board_is_refused(size: int, message: str) -> None:
    segment: Segment = create(next_name(), size)
    with pytest.raises(BoardRefused, match=message):
        BoardReader.attach(segment.name)
    segment.unlink()
    segment.close()


def test_absent_board_is_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        BoardReader.attach(next_name())


def test_slot_that_stays_torn_shows_its_last_whole_values(
    board: Board, reader: BoardReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "LOOKS_MAX", 3)
    board.agent(1).update(turns=5)
    reader.snapshot()
    memory, slot = board._segment.memory, 192 + 192
    struct.pack_into("<Q", memory, slot, 5)  # In the middle of an update ...
    struct.pack_into("<Q", memory, slot + 104, 99)  # ... that has written this much.
    board.agent(2).update(turns=6)
    torn = reader.snapshot()
    assert [agent.turns for agent in torn.agents] == [0, 5, 6]
    assert torn.stale == ("agent 1",)
    struct.pack_into("<Q", memory, slot, 6)
    whole = reader.snapshot()
    assert [agent.turns for agent in whole.agents] == [0, 99, 6]
    assert whole.stale == ()


def test_slot_torn_since_before_the_observer_came_shows_zeros(
    board: Board, reader: BoardReader
) -> None:
    for at in (64, 128):
        struct.pack_into("<Qq", board._segment.memory, at, 1, 99)
    shown = reader.snapshot()
    assert (shown.supervisor.pid, shown.engine.pid) == (0, 0)
    assert shown.stale == ("supervisor", "engine")


def test_slot_written_while_it_is_copied_is_looked_at_again(
    board: Board, reader: BoardReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fence_with_a_writer_in_between() -> None:
        calls.append(len(calls))
        if len(calls) <= 6:  # Each of the first looks at each slot meets an update.
            board.agent(0).update(turns=len(calls), fuel=len(calls))
            board.engine.update(rows=len(calls), tokens=len(calls))

    monkeypatch.setattr(observer, "fence", fence_with_a_writer_in_between)
    shown = reader.snapshot()
    assert shown.stale == ()
    assert shown.agents[0].turns == shown.agents[0].fuel == 6
    assert shown.engine.rows == shown.engine.tokens > 0
    assert len(calls) > 6


@pytest.mark.parametrize(
    ("strong", "looks"),
    [(True, 150), (False, 150), pytest.param(True, 100_000, marks=pytest.mark.nightly)],
)
def test_no_snapshot_is_torn_while_another_process_writes_all_the_time(
    fork,
    board: Board,
    reader: BoardReader,
    strong: bool,
    looks: int,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    monkeypatch.setattr(cursor, "STRONG", strong)
    ready = Doorbell.create()

    def write() -> None:
        count = 0
        while True:
            count += 1
            board.engine.update(step=count, rows=count, tickets_waiting=count, tokens=count)
            board.agent(0).update(name=str(count), step=count, turns=count, fuel=count)
            if count == 1:
                ready.ring()

    child = fork(write)
    ready.wait()
    seen = set()
    last = 0
    while len(seen) < looks:
        shown = reader.snapshot()
        engine, agent = shown.engine, shown.agents[0]
        assert engine.step == engine.rows == engine.tickets_waiting == engine.tokens >= last
        assert int(agent.name or 0) == agent.step == agent.turns == agent.fuel
        last = engine.step
        seen.add(last)
    assert child.kill() == -signal.SIGKILL
    ready.close()


def test_observer_cannot_write(reader: BoardReader) -> None:
    with pytest.raises(TypeError):
        reader._segment.memory[64] = 1
    assert not any(slots.flags.writeable for slots in reader._live)


def test_closing_works_twice_and_after_the_board_is_gone() -> None:
    board = Board.create(next_name(), 1)
    board.agent(0).update(turns=3)
    reader = BoardReader.attach(board.name)
    board.close()
    assert reader.snapshot().agents[0].turns == 3
    reader.close()
    reader.close()
