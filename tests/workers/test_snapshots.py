"""Agents that are brought back from a snapshot: sooner, and the same."""

from __future__ import annotations

import json
import os
import random
import resource
from pathlib import Path
from typing import Any

import fleets
import numpy as np
import pytest
from living import Living, kill

from lockstep.engine.fleet import Fleet
from lockstep.engine.fleet_file import parse
from lockstep.workers import verify, view
from lockstep.workers.agent.snapshot import PAGE_BYTES, Held, Store
from lockstep.workers.job import Job
from lockstep.workers.launch import launch
from lockstep.workers.snapshots import Snapshots

KEEPERS = """
[fleet]
name = "keepers"
seed = 3
[recovery]
snapshot_turns = TURNS
[schedule]
policy = "dag"
order = "ORDER"
items_in_flight_max = 3
SOURCE
[agents.first]
module = "GUESTS/keeper.wasm"
memory_bytes_max = 4_194_304
[agents.second]
module = "GUESTS/keeper.wasm"
replicas = 2
after = ["first"]
input = "deal"
memory_bytes_max = 4_194_304
[agents.last]
module = "GUESTS/echo.wasm"
after = ["second"]
"""
FIRST, SECOND, LAST = 0, 1, 3
SOURCE = '[sources.feed]\nkind = "stdin"'


def commands(chance: random.Random) -> dict[str, str]:
    """An item; before its commands there are four pairs of bytes that mean nothing."""
    pairs = (chance.choice("bbwwzgrcl") + chance.choice("5AZaz~") for _ in range(4))
    return {"do": "".join(pairs)}


def job(
    folder: Path,
    turns: int,
    name: str,
    *,
    count: int = 0,
    order: str = "strict",
    **more: Any,
) -> Job:
    """A run of ``count`` items; of 0, it waits for lines."""
    text = KEEPERS.replace("TURNS", str(turns)).replace("ORDER", order)
    path = fleets.fleet(folder, text.replace("SOURCE", "" if count else SOURCE))
    given = ""
    if count:
        chance = random.Random(1)
        given = str(folder / "input.jsonl")
        lines = [json.dumps(commands(chance)) + "\n" for _ in range(count)]
        Path(given).write_text("".join(lines))
    return Job(fleet=str(path), base=str(folder), input=given, run_dir=str(folder / name), **more)


def one_by_one(run: Living, chance: random.Random, count: int) -> None:
    """So many items, each of them a turn of its own."""
    for _ in range(count):
        before = len(run.lines())
        run.tell(commands(chance))
        run.until(lambda want=before + 1: len(run.lines()) >= want)  # type: ignore[misc]


def test_how_often_snapshots_are_taken_changes_nothing(tmp_path: Path) -> None:
    digests = set()
    for turns in (0, 1, 7, 1000):
        summary = launch(job(tmp_path, turns, f"every-{turns}", count=60))
        assert (summary["state"], summary["items_out"]) == ("finished", 60)
        digests.add(summary["digest"])
    assert len(digests) == 1


@pytest.mark.parametrize("order", ["strict", "arrival"])
@pytest.mark.parametrize("turns", [1, 7])
def test_an_agent_is_brought_back_from_its_snapshot(tmp_path: Path, order: str, turns: int) -> None:
    chance = random.Random(turns)
    with Living(job(tmp_path, turns, "run", order=order), feed=True) as run:
        for _ in range(3):
            one_by_one(run, chance, 12)
            kill(run.until_state(FIRST, view.IDLE))
            run.tell(commands(chance))  # It is woken while it comes back.
            assert int(run.note("agent first ").split()[-3]) <= turns + 1
        kill(run.until_state(LAST, view.IDLE))
        # The blocking form repeats its whole life: START, and an item each.
        assert int(run.note("agent last ").split()[-3]) > 36
        summary = run.end()
    assert (summary["state"], summary["restarts"]) == ("finished", 4)
    again = verify(tmp_path / "run")
    assert again.equal and again.whole


def test_without_snapshots_a_reactor_repeats_its_whole_life(tmp_path: Path) -> None:
    chance = random.Random(0)
    with Living(job(tmp_path, 0, "run"), feed=True) as run:
        one_by_one(run, chance, 20)
        kill(run.until_state(FIRST, view.IDLE))
        assert int(run.note("agent first ").split()[-3]) > 20
        summary = run.end()
    assert (summary["state"], summary["restarts"]) == ("finished", 1)


def test_only_agents_of_which_it_can_be_done_have_a_store_and_only_their_own(
    tmp_path: Path,
) -> None:
    with Living(job(tmp_path, 5, "run"), feed=True) as run:
        run.tell(commands(random.Random(0)))
        run.until(lambda: len(run.lines()) == 1)
        found = []
        for index in range(LAST + 1):
            folder = Path(f"/proc/{run.until_state(index, view.IDLE)}/fd")
            links = [(each.stat().st_ino, str(each.readlink())) for each in folder.iterdir()]
            found.append([inode for inode, link in links if "lockstep-snapshots" in link])
        run.end()
    assert [len(each) for each in found] == [1, 1, 1, 0]
    assert len({each[0] for each in found[:LAST]}) == LAST


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    text = KEEPERS.replace("TURNS", "5").replace("ORDER", "strict").replace("SOURCE", "")
    return parse(text.encode(), "fleet.toml")


def wrote(store: Store, turn: int) -> None:
    memory = np.zeros((1, PAGE_BYTES // 8), np.uint64)
    store.write(Held(turn, memory.nbytes, (), -1, 0, frozenset()), memory)


def test_where_an_agent_begins(fleet: Fleet) -> None:
    snapshots = Snapshots(fleet)
    snapshots.prepare([FIRST, SECOND])
    assert snapshots.first_turn(FIRST, 100) == 0
    assert snapshots.keeper(LAST, 0) is None and snapshots.descriptors(LAST) == []
    keeper = snapshots.keeper(FIRST, 0)
    assert keeper is not None and keeper.after is None
    store = Store(*snapshots.descriptors(FIRST), 4_194_304)
    for turn in (5, 10):
        wrote(store, turn)
    # The last turn that arrived is repeated in any case.
    assert [snapshots.first_turn(FIRST, at) for at in (4, 5, 6, 10, 11, 14)] == [0, 0, 6, 6, 11, 11]
    assert snapshots.first_turn(SECOND, 14) == 0
    keeper = snapshots.keeper(FIRST, 11)
    assert keeper is not None and keeper.after == 10
    # Dead again, and not a turn more: perhaps it was the snapshot. Then it has another chance.
    begun = []
    for _ in range(4):
        begun.append(snapshots.first_turn(FIRST, 14))
        assert snapshots.first_turn(FIRST, 14) == begun[-1]  # Asking alone changes nothing.
        snapshots.keeper(FIRST, begun[-1])
    assert begun == [0, 11, 0, 11]
    snapshots.close()
    snapshots.close()


def test_without_descriptors_for_all_of_them_there_are_no_snapshots(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 203))  # Four agents need 202.
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    for indices, made in (([FIRST, SECOND], 0), ([FIRST], 1), ([], 0)):
        snapshots = Snapshots(fleet)
        snapshots.prepare(indices)
        assert len(os.listdir("/proc/self/fd")) == used + made  # noqa: PTH208
        snapshots.close()
