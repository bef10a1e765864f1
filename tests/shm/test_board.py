"""The writing side of the board."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep.shm import Board, BoardReader, board, next_name
from lockstep.shm.board import AGENT, ENGINE, SUPERVISOR


@pytest.fixture
def made() -> Iterator[Board]:
    made = Board.create(next_name(), agents=3)
    yield made
    made.close()


def offsets(dtype) -> dict[str, int]:  # type: ignore[no-untyped-def]
    return {name: field[1] for name, field in dtype.fields.items()}


def test_header_and_slots_are_where_the_drawing_says(made: Board) -> None:
    made.supervisor.update(pid=11, start_time=12, state=13)
    made.engine.update(
        pid=21,
        state=22,
        step=-23,
        rows=24,
        tickets_waiting=25,
        tokens=26,
        tokens_per_s=27,
        at_us=28,
    )
    made.agent(1).update(
        name="Ännchen", state=32, pid=33, step=34, micro=35, turns=36, fuel=2**64 - 1, stall_us=37
    )
    made.agent(1).update(mailbox=38, requests=39)
    data = Path("/dev/shm", made.name[1:]).read_bytes()
    assert len(data) == 192 + 3 * 192
    assert data[:8] == b"LSboard\x01"
    assert struct.unpack_from("=QQQ", data, 8) == (3, len(data), 3)
    assert struct.unpack_from("<QqQI", data, 64) == (2, 11, 12, 13)
    engine = struct.unpack_from("<QqIIqQQQQ", data, 128)
    assert engine == (2, 21, 22, 27, -23, 24, 25, 26, 28)
    agent = struct.unpack_from("<Q64sIIqqQQQQQQ", data, 192 + 192)
    assert agent[1].rstrip(b"\0").decode() == "Ännchen"
    assert (agent[0], *agent[2:]) == (6, 1, 32, 33, 34, 35, 36, 2**64 - 1, 37, 38, 39)


def test_each_field_is_at_its_offset() -> None:
    assert offsets(SUPERVISOR) == {"sequence": 0, "pid": 8, "start_time": 16, "state": 24}
    assert offsets(ENGINE) == {
        "sequence": 0, "pid": 8, "state": 16, "tokens_per_s": 20, "step": 24, "rows": 32,
        "tickets_waiting": 40, "tokens": 48, "at_us": 56,
    }  # fmt: skip
    assert offsets(AGENT) == {
        "sequence": 0, "name": 8, "index": 72, "state": 76, "pid": 80, "step": 88, "micro": 96,
        "turns": 104, "fuel": 112, "stall_us": 120, "mailbox": 128, "requests": 136,
    }  # fmt: skip
    assert [dtype.itemsize for dtype in (SUPERVISOR, ENGINE, AGENT)] == [64, 64, 192]
    assert board.OFFSETS == {"magic": 0, "version": 8, "size_bytes": 16, "agents": 24}
    assert (board.SUPERVISOR_OFFSET, board.ENGINE_OFFSET, board.AGENTS_OFFSET) == (64, 128, 192)


def test_update_changes_the_named_fields_only(made: Board) -> None:
    reader = BoardReader.attach(made.name)
    made.agent(2).update(name="worker", state=1, fuel=100)
    made.agent(2).update(fuel=200)
    agent = reader.snapshot().agents[2]
    assert (agent.name, agent.index, agent.state, agent.fuel) == ("worker", 2, 1, 200)
    reader.close()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"colour": 1}, ValueError, "no field 'colour', only name, index, state, pid"),
        ({"sequence": 1}, ValueError, "no field 'sequence'"),
        ({"state": -1}, OverflowError, "too large|out of bounds"),
        ({"state": 2**32}, OverflowError, "too large|out of bounds"),
        ({"fuel": 2**64}, OverflowError, "too large|out of bounds"),
        ({"name": "x" * 65}, ValueError, "65 bytes, expected up to 64"),
        ({"name": "ä" * 33}, ValueError, "66 bytes, expected up to 64"),
        ({"name": "a\0b"}, ValueError, "without NUL"),
        ({"name": 5}, ValueError, "name cannot be 5"),
        ({"turns": "5"}, ValueError, "turns cannot be '5'"),
    ],
)
def test_refused_update_leaves_the_slot_as_it_was(made: Board, fields, error, message) -> None:  # type: ignore[no-untyped-def]
    reader = BoardReader.attach(made.name)
    made.agent(0).update(name="x" * 64, turns=9, step=9)
    before = reader.snapshot()
    with pytest.raises(error, match=message):
        made.agent(0).update(**{"step": 10, **fields})
    assert reader.snapshot() == before
    assert before.agents[0].name == "x" * 64
    made.agent(0).update(turns=11)
    assert reader.snapshot().agents[0].turns == 11
    reader.close()


@pytest.mark.parametrize("agents", [-1, 65_537])
def test_senseless_number_of_agents_is_refused(agents: int) -> None:
    with pytest.raises(ValueError, match=f"board of {agents} agents"):
        Board.create(next_name(), agents)


def test_taken_name_is_refused(made: Board) -> None:
    with pytest.raises(FileExistsError):
        Board.create(made.name, 1)
    BoardReader.attach(made.name).close()  # The first one is whole.


def test_closing_removes_the_name_and_works_twice() -> None:
    made = Board.create(next_name(), 1)
    path = Path("/dev/shm", made.name[1:])
    assert path.exists()
    made.close()
    made.close()
    assert not path.exists()


def test_engine_slot_is_written_by_the_inference_process_and_nobody_else_maps_the_board(
    fork,
) -> None:  # type: ignore[no-untyped-def]
    made = Board.create(next_name(), 2)
    made.seal()
    reader = BoardReader.attach(made.name)

    def boards_mapped() -> int:
        return sum("rw-s" in line and made.name in line for line in open("/proc/self/maps"))

    with made.lend():
        child = fork(lambda: made.engine.update(pid=os.getpid(), step=5, tokens=6))
    assert child.join() == 0
    engine = reader.snapshot().engine
    assert (engine.pid, engine.step, engine.tokens) == (child.pid, 5, 6)
    assert fork(lambda: os._exit(boards_mapped())).join() == 0
    reader.close()
    made.close()


def test_successor_of_a_writer_killed_in_an_update_repairs_the_slot(made: Board) -> None:
    reader = BoardReader.attach(made.name)
    made.engine.update(step=1)
    memory = made._segment.memory
    memory[128] += 1  # The sequence: odd, as if it had died there.
    memory[128 + 24] = 77
    assert reader.snapshot().stale == ("engine",)
    made.engine.update(step=2)
    snapshot = reader.snapshot()
    assert (snapshot.stale, snapshot.engine.step) == ((), 2)
    assert memory[128] == 6  # It went on, and never back.
    reader.close()
