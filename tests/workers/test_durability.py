"""Whole runs at each durability level: physical, so that nothing of the run depends on it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import fleets
import pytest

from lockstep.workers import resume, run, verify
from lockstep.workers.journal_file import LEVELS

TOOLS = """
[fleet]
name = "tools"
seed = 4
[tools.upper]
command = ["/bin/sh", "-c", "tr a-z A-Z"]
[agents.caller]
module = "GUESTS/caller.wasm"
input = "broadcast"
tools = ["upper"]
config = { tool = "upper" }
"""


def test_the_level_changes_nothing_of_a_run(tmp_path: Path) -> None:
    fleet, items = fleets.fleet(tmp_path, fleets.ECHO), fleets.items(tmp_path, 20)
    runs = {
        level: run(fleet, items, run_dir=tmp_path / level, durability=level) for level in LEVELS
    }
    assert len({each.digest for each in runs.values()}) == 1
    journals = [(tmp_path / level / "journal/00000000.journal").stat().st_size for level in LEVELS]
    assert len(set(journals)) == 1
    assert all(each.output == runs["memory"].output for each in runs.values())


@pytest.mark.parametrize("level", ["async", "sync"])
def test_tools_start_and_answer_at_every_level(tmp_path: Path, level: str) -> None:
    fleet = fleets.fleet(tmp_path, TOOLS)
    done = run(fleet, fleets.items(tmp_path, 6), run_dir=tmp_path / "run", durability=level)
    assert done.exit_code == 0 and len(done.output) == 6
    assert verify(tmp_path / "run").equal


def sync_process_of(supervisor: int) -> int:
    """The child that has neither a ring nor a model open: a socket, a folder and a segment."""
    for pid in fleets.children_of(supervisor):
        files = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        if any(file.endswith("/run/journal") for file in files):
            return pid
    raise AssertionError("there is no sync process")


def test_a_sync_process_that_is_killed_idle_is_replaced_and_nobody_notices(tmp_path: Path) -> None:
    fleet, items = fleets.fleet(tmp_path, fleets.CONVERSATION), fleets.items(tmp_path, 60)
    undisturbed = run(fleet, items, run_dir=tmp_path / "undisturbed" / "run")
    killed: list[int] = []

    def listen(what: str, value: Any) -> None:
        # Not when everything is done: the last progress is told while the run is closed.
        busy = what == "progress" and value["turns"] > 8 and value["items_done"] < 40
        if busy and not killed:
            supervisor = fleets.supervisor_of(tmp_path / "killed" / "run")
            killed.append(sync_process_of(supervisor))
            os.kill(killed[0], signal.SIGKILL)

    done = run(fleet, items, run_dir=tmp_path / "killed" / "run", listen=listen)
    assert killed
    if done.exit_code:
        # A sync is asked for a second after a write: once in a long while it is under way now.
        assert "whether that failed cannot be found out" in done.summary["reason"]
        done = resume(tmp_path / "killed" / "run")
    assert (done.exit_code, done.digest) == (0, undisturbed.digest)
    assert verify(tmp_path / "killed" / "run").equal
