"""`lockstep sweep`: many runs, one table, the same however it came about."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fleets
import pytest

from lockstep.workers import folder as folders
from lockstep.workers.sweeps.table import TIMES

WATCHDOG_S = 120.0
SMALL = ("asks.toml", "--input", "items.jsonl", "--durability", "memory", "--seeds", "1..2",
         "--set", "agents.ask.config.temperature=0.5,0.9")  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, fill: Any) -> tuple[Any, Any]:
    """A small sweep of one job, in the folder ``one`` of a place."""
    place = fill(tmp_path_factory.mktemp("swept"))
    return place, place.lockstep("sweep", *SMALL, "--jobs", "1", "--out", "one", "--json")


def _table(place: Any, out: str) -> list[list[str]]:
    """The table without its times."""
    text = (place.path / out / "results.csv").read_text()
    rows = list(csv.reader(io.StringIO(text)))
    assert tuple(rows[0][-len(TIMES) :]) == TIMES
    return [row[: -len(TIMES)] for row in rows]


def _until(process: "subprocess.Popen[str]", reached: Callable[[], bool]) -> None:
    """Wait for it; not for what a process that has ended can bring no more."""
    end_s, lived = time.monotonic() + WATCHDOG_S, True
    while not reached():
        assert lived, process.communicate()
        assert time.monotonic() < end_s, "the watchdog ended a wait"
        lived = process.poll() is None


def test_a_sweep_gives_the_digests_of_its_runs_in_order_of_the_grid(swept: Any) -> None:
    place, one = swept
    assert one.code == 0, one.err
    assert one.json["runs"] == one.json["done"] == 4 and one.json["failed"] == []
    head, *rows = _table(place, "one")
    assert head[:3] == ["run", "seed", "agents.ask.config.temperature"]
    heats, digest = (("0.5", "1"), ("0.5", "2"), ("0.9", "1"), ("0.9", "2")), head.index("digest")
    assert [row[:3] for row in rows] == [[str(n), s, t] for n, (t, s) in enumerate(heats, 1)]
    digests = [row[digest] for row in rows]
    assert len(set(digests)) == 4
    lines = (place.path / "one/results.jsonl").read_text().splitlines()
    assert [json.loads(line)["digest"] for line in lines] == digests
    assert [*json.loads(lines[0])] == [*head, *TIMES]
    # Each is a whole run: it verifies, and is what `lockstep run` makes of the same settings.
    assert place.lockstep("verify", "one/runs/00001").code == 0
    alone = place.lockstep("run", "asks.toml", "--input", "items.jsonl", "--seed", "2", "--json")
    assert alone.json["digest"] == digests[3]


def test_the_table_is_the_same_for_any_number_of_jobs(swept: Any) -> None:
    place, _ = swept
    three = place.lockstep("sweep", *SMALL, "--jobs", "3", "--out", "three")
    assert three.code == 0, three.err
    assert _table(place, "three") == _table(place, "one")


def test_a_sweep_that_was_killed_goes_on_to_the_same_table(swept: Any) -> None:
    place, _ = swept
    process = place.start("sweep", *SMALL, "--jobs", "2", "--out", "cut")
    kept = place.path / "cut/finished.jsonl"
    assert process.stderr is not None
    while "1/4: run " not in process.stderr.readline():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = [json.loads(line)["run"] for line in kept.read_bytes().splitlines()]
    summaries = {n: place.path / f"cut/runs/{n:05}" / folders.SUMMARY for n in done}
    before = {n: path.stat().st_mtime_ns for n, path in summaries.items()}
    with open(kept, "ab") as file:  # As if the power had failed in the middle of a line.
        file.write(b'{"run": 4, "se')
    again = place.lockstep("sweep", *SMALL, "--jobs", "2", "--out", "cut", "--json")
    assert again.code == 0, again.err
    assert f"{len(done)} of 4 runs are done already" in again.err
    assert _table(place, "cut") == _table(place, "one")
    assert {n: path.stat().st_mtime_ns for n, path in summaries.items()} == before


def test_runs_that_are_half_made_half_done_or_done_are_told_apart(swept: Any, cut: Any) -> None:
    place, _ = swept
    out = place.path / "half"
    shutil.copytree(place.path / "one", out, ignore=shutil.ignore_patterns("00002", "results.*"))
    kept = out / "finished.jsonl"
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:1]))
    cut(place.path / "one/runs/00002", out / "runs/00002", 12)  # Killed in the middle of it,
    (out / "runs/00003" / folders.MANIFEST).unlink()  # while it was made,
    done = out / "runs/00004" / folders.SUMMARY  # and before its row was kept.
    before = done.stat().st_mtime_ns
    again = place.lockstep("sweep", *SMALL, "--jobs", "2", "--out", "half", "--json")
    assert again.code == 0, again.err
    assert "1 of 4 runs are done already" in again.err
    assert _table(place, "half") == _table(place, "one")
    assert done.stat().st_mtime_ns == before


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(place: Any) -> None:
    sweep = ("sweep", "endless.toml", "--input", "items.jsonl", "--seeds", "1..3", "--jobs", "2")
    process = place.start(*sweep, "--out", "out", "--json")
    boards = [place.path / f"out/runs/0000{n}" / folders.BOARD for n in (1, 2)]
    _until(process, lambda: all(board.exists() for board in boards))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    found = json.loads(out.splitlines()[-1])
    assert (found["state"], found["runs"], found["done"]) == ("interrupted", 3, 0)
    assert "the same command with --out" in err
    for number in (1, 2):
        summary = json.loads((boards[number - 1].parent / folders.SUMMARY).read_text())
        assert summary["reason"] == "interrupted"
    assert not (place.path / "out/runs/00003").exists()  # Nothing was started any more.
    assert not any(board.exists() for board in boards)
    # Twice: at once, though a supervisor hears nothing. Whoever looks for them is in nobody's way.
    process = place.start(*sweep, "--out", "out")
    _until(
        process, lambda: all(folders.holder_of(board.parent) and board.exists() for board in boards)
    )
    pids = [fleets.supervisor_of(board.parent) for board in boards]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    _until(process, lambda: all(_status(pid, "State") == "T" for pid in pids))
    process.send_signal(signal.SIGINT)
    pending = 1 << (signal.SIGINT - 1)
    _until(process, lambda: all(int(_status(pid, "ShdPnd"), 16) & pending for pid in pids))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WATCHDOG_S)
    assert process.returncode == 130, err


def _status(pid: int, key: str) -> str:
    """A line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(key))


def test_a_run_that_fails_is_named_and_the_others_go_on(place: Any) -> None:
    sets = ("--set", "agents.boom.config.trap_item=2,99", "--set", "fleet.turns_max=4,400")
    args = ("sweep", "trap.toml", "--input", "items.jsonl", *sets, "--out", "out")
    found = place.lockstep(*args, "--json")
    assert found.code == 3, found.err
    assert found.json["failed"] == [1, 2, 3] and found.json["done"] == 4
    assert "run 1 (seed 0): " in found.err and "1 items, " in found.err
    # An end of their own is one: nothing is tried again.
    again = place.lockstep(*args, "--json")
    assert again.code == 3 and "4 of 4 runs are done already" in again.err
