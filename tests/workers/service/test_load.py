"""What a service says of its run: read from a board and a manifest, from outside."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep.shm import Board, next_name
from lockstep.workers.service.done import DEATHS, Done
from lockstep.workers.service.load import Load

MODELS = [{"name": "big", "rows_max": 16}, {"name": "small", "rows_max": 4, "kind": "tensors"}]


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(next_name(), agents=4)
    yield made
    made.close()


def write(run: Path, board: str, models: list[dict[str, Any]]) -> None:
    (run / "board.json").write_text(json.dumps({"name": board}))
    value = {"identity": {"fleet": {"models": models}}}
    (run / "manifest.json").write_text(json.dumps(value))


def test_a_run_is_seen_by_its_board_and_its_replicas_together(tmp_path: Path, board: Board) -> None:
    write(tmp_path, board.name, MODELS)
    now_us = int(time.monotonic() * 1e6)
    board.engine.update(pid=1, rows=5, tickets_waiting=7, tokens=9, tokens_per_s=3, at_us=now_us)
    for index, (name, stall_us) in enumerate(
        (("solver.0", 1_000_000), ("solver.1", 500_000), ("judge", 250_000), ("idle", 0))
    ):
        board.agent(index).update(name=name, stall_us=stall_us)
    load = Load(tmp_path)
    assert load.now() == {
        "rows": 5, "rows_max": 20, "requests_waiting": 7, "tokens_per_s": 3,
        "stall_s": {"solver": 1.5, "judge": 0.25, "idle": 0.0},
    }  # fmt: skip
    board.engine.update(rows=0, at_us=0)  # Long ago: it makes nothing now.
    assert load.now()["tokens_per_s"] == 0


def test_what_cannot_be_read_is_left_out(tmp_path: Path, board: Board) -> None:
    load = Load(tmp_path)
    assert load.now() == {}  # The run is being made.
    for bad in ("{", "[]", "{}", '{"name": 5}', '{"name": "/lockstep-none"}'):
        (tmp_path / "board.json").write_text(bad)
        (tmp_path / "manifest.json").write_text(bad)
        assert load.now() == {}
    (tmp_path / "board.json").write_text(json.dumps({"name": board.name}))
    assert load.now()["rows_max"] == 0
    write(tmp_path, board.name, MODELS)
    assert load.now()["rows_max"] == 20  # It was not taken for known when there was nothing.


def told(**more: int) -> dict[str, int]:
    return {"tokens_in": 0, "tokens": 0, "steps": 0, "turns": 0, "restarts": 0, **more}


def test_what_a_run_does_is_counted_from_when_the_service_holds_it() -> None:
    new, old = Done(), Done(new=False)
    for one in (new, old):
        one.told(told(tokens=10, turns=2))
        one.told(told(tokens=15, turns=3))
    assert (new.counts["tokens"], new.counts["turns"]) == (15, 3)
    assert (old.counts["tokens"], old.counts["turns"]) == (5, 1)
    new.died()
    new.told(told(tokens=12))  # Three were in no record; they are made again.
    new.told(told(tokens=16))
    assert new.counts["tokens"] == 19 and new.counts[DEATHS] == 1
    assert new.progress == told(tokens=16)
