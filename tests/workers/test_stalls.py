"""Stalls: wall time by whoever held the inference process back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fleets

from lockstep.workers import run
from lockstep.workers.stalls import NOBODY, SHOWN, Stalls


def stalls(times: list[float], names: int = 3) -> Stalls:
    """Over a clock that shows these times, one after another."""
    clock: Iterator[float] = iter([0.0, *times])
    return Stalls([f"a{n}" for n in range(names)], 1000, lambda: next(clock))


def test_time_is_booked_to_who_held_since_the_last_look() -> None:
    found = stalls([1.0, 3.0, 4.0, 4.5])
    found.look(2, 7)
    assert found.holder == 2
    found.look(0, 7)
    found.look(2, 8)
    found.look(None, 8)
    assert found.holder is None and found.seconds() == 3.5
    assert found.table() == [
        {"agent": "a2", "steps": 2, "seconds": 2.5, "quanta": 0.0},
        {"agent": "a0", "steps": 1, "seconds": 1.0, "quanta": 0.0},
    ]


def test_an_engine_that_does_not_wait_costs_no_look_at_the_clock() -> None:
    found = stalls([])
    found.look(None, 1)
    found.look(None, 2)
    assert found.table() == [] and found.seconds() == 0


def test_one_step_that_waited_is_counted_once_for_each_holder() -> None:
    found = stalls([1.0, 2.0, 3.0, 4.0])
    for holder in (1, 1, NOBODY, 1):
        found.look(holder, 5)
    rows = {row["agent"]: row["steps"] for row in found.table()}
    assert rows == {"a1": 1, "": 1}


def test_turns_are_told_in_quanta() -> None:
    found = stalls([1.0, 2.0])
    found.ended(1, 500)
    found.ended(1, 4500)
    found.look(1, 0)
    found.look(None, 0)
    assert found.table()[0]["quanta"] == 2.5


def test_the_longest_come_first_and_no_more_than_fit_a_screen() -> None:
    names = SHOWN + 5
    found = stalls([float(n * (n + 1) // 2) for n in range(names + 1)], names)
    for agent in range(names):
        found.look(agent, agent)
    found.look(None, names)
    table = found.table()
    assert [row["agent"] for row in table] == [f"a{n}" for n in range(names - 1, 4, -1)]


SLOW = """
[fleet]
name = "slow"
[schedule]
fuel_per_step = 100_000_000
[models.default]
path = "MODEL"
providers = ["cpu"]
tokens_max = 128
[agents.burner]
module = "GUESTS/burner.wasm"
input = "broadcast"
config = { loops = 150_000_000 }  # It waits for this, however slow the model's process is.
[agents.asker]
module = "GUESTS/asker.wasm"
input = "broadcast"
config = { tokens = 60 }
"""


def test_a_slow_agent_is_named_at_the_end_of_a_run(tmp_path: Path) -> None:
    done = run(
        fleets.fleet(tmp_path, SLOW), fleets.items(tmp_path, 1), run_dir=tmp_path / "run"
    ).summary
    assert done["exit_code"] == 0
    (burner,) = [row for row in done["stalls"] if row["agent"] == "burner"]
    assert burner["steps"] >= 1 and burner["quanta"] > 1
    assert 0 < burner["seconds"] <= done["stalled_s"] <= done["run_s"] <= done["wall_s"]
