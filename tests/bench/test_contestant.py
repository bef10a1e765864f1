"""Lockstep as a contestant: real runs that stop and go on, measured and closed."""

from pathlib import Path

import psutil
import pytest

from lockstep.bench.contestant import lockstep, whole
from lockstep.bench.groups.agents import ring
from lockstep.engine.errors import UsageError

ITEMS = '{"id": 1}\n'
ASKS_NOBODY = """
[fleet]
name = "still"
[agents.thinker]
module = "GUESTS/think.wasm"
input = "broadcast"
config = { fuel = 1000, requests = 0 }
"""
ASKS_A_MODEL = ASKS_NOBODY.replace("requests = 0", "requests = 1")


def test_rounds_have_as_many_turns_as_were_asked_for() -> None:
    with lockstep(ring(2, 1)) as line:
        assert line.hello["agents"] == 2 and line.hello["start_ns"] > 0
        line.ask(turns=4)  # The turns of START are behind them: one token goes round.
        for turns in (1, 20, 7):
            answer = line.ask(turns=turns)
            assert answer["turns"] == turns
            assert answer["messages"] == turns
            assert len(answer["times_ns"]) == turns - 1
            assert answer["hops_ns"] == []  # Nobody asked for them.
            assert answer["ns"] >= sum(answer["times_ns"]) > 0 or turns == 1


def test_hops_lie_inside_the_times_of_their_turns() -> None:
    with lockstep(ring(3, 1), hops=True) as line:
        line.ask(turns=6)
        answer = line.ask(turns=30)
    assert len(answer["hops_ns"]) == 30
    assert min(answer["hops_ns"]) > 0
    assert sum(answer["hops_ns"][1:]) <= answer["ns"]  # The first went on while nobody asked.


def test_agents_that_are_woken_at_one_tag_are_one_time() -> None:
    with lockstep(ring(5, 5)) as line:
        answer = line.ask(turns=50)
    assert len(answer["times_ns"]) <= 10 <= answer["turns"] // 5


def test_nothing_is_left_when_a_contestant_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with lockstep(ring(2, 1)) as line:
        line.ask(turns=3)
        processes = [line.pid, *(c.pid for c in psutil.Process(line.pid).children())]
        names = {e.name for e in Path("/dev/shm").iterdir() if f"-{line.pid}-" in e.name}
    assert len(processes) == 4 and names  # Supervisor, sync process, agents.
    assert [pid for pid in processes if psutil.pid_exists(pid)] == []
    assert [name for name in names if Path("/dev/shm", name).exists()] == []
    assert list(tmp_path.iterdir()) == []


def test_a_whole_run_has_its_time_and_its_summary() -> None:
    run = whole(ASKS_NOBODY, ITEMS)
    assert run.seconds > 0 and run.tokens_out == 0
    assert run.summary["items_out"] == 1


def test_a_run_in_which_something_failed_is_no_figure() -> None:
    with pytest.raises(UsageError, match=r"with failures: .*\[models.NAME\]"):
        whole(ASKS_A_MODEL, ITEMS)


def test_a_fleet_that_is_refused_is_told_with_its_reason() -> None:
    with pytest.raises(UsageError, match="nothing_like_it"):
        whole(ASKS_NOBODY + "nothing_like_it = 1\n", ITEMS)
