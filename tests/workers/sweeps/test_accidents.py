"""Accidents in a sweep: what one run meets is its own."""

import os
import signal
from pathlib import Path
from typing import Any

import fleets
import pytest
from living import kill

from lockstep.workers import folder as folders
from lockstep.workers import sweep
from lockstep.workers.sweeps import table
from lockstep.workers.sweeps.grid import axes_of, combinations, points

ENDLESS = """
[fleet]
name = "endless"
[agents.spin]
module = "GUESTS/looper.wasm"
turn_fuel_max = 1_000_000_000_000_000_000
input = "broadcast"
"""


def test_a_supervisor_that_is_killed_is_named_and_the_others_go_on_until_they_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    heard: list[tuple[str, int]] = []
    killed: list[int] = []

    def listen(what: str, number: int, value: Any) -> None:
        heard.append((what, number))
        if what == "progress" and number == 1 and not killed:  # More may have been said already.
            killed.append(fleets.supervisor_of("out/runs/00001"))
            kill(*killed)
        if what == "row":
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    made = sweep(
        fleets.fleet(tmp_path, ENDLESS),
        fleets.items(tmp_path, 1),
        seeds="1..3",
        jobs=2,
        out="out",
        durability="memory",
        listen=listen,
    )
    assert signal.getsignal(signal.SIGINT) is before
    assert (made.exit_code, made.interrupted, made.runs) == (130, True, 3)
    (row,) = made.rows  # The second stopped cleanly and goes on; the third was never started.
    assert (row["run"], row["state"], row["exit_code"]) == (1, "stopped", 3)
    assert "the supervisor process ended with SIGKILL" in row["reason"]
    assert ("start", 2) in heard and ("start", 3) not in heard
    assert (made.folder / "finished.jsonl").read_bytes() == b""
    assert folders.holder_of(made.folder / "runs/00002") is None


def test_runs_with_other_model_files_than_the_first_of_their_settings_are_told() -> None:
    axes = axes_of(["schedule.lookahead=1,2"])
    summary = {"state": "finished", "exit_code": 0, "reason": ""}
    rows = [
        table.row_of(point, "", models, summary)
        for point, models in zip(points(combinations(axes), [1, 2]), "abcc", strict=True)
    ]
    (told,) = table.changed_models(rows, axes)
    assert told.startswith("run 2 was made with other model files than run 1 (b, a)")
