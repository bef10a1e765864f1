"""A run that waits costs nothing: nobody polls, so nobody is woken."""

from __future__ import annotations

from pathlib import Path

import fleets
import pytest
from living import Living

from lockstep.workers import run
from lockstep.workers.job import Job

WAITING = """
[fleet]
name = "waiting"
[models.default]
path = "MODEL"
providers = ["cpu"]
tokens_max = 64
[sources.feed]
kind = "stdin"
[agents.asker]
module = "GUESTS/asker.wasm"
replicas = 2
input = "deal"
config = { tokens = 3 }
"""
ROUNDS_MAX = (
    20  # A sync that was put off, a last look at who is silent: then nothing is left to do.
)


def switches(pid: int) -> int:
    """How often a process, all threads, has given its core away."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return total


@pytest.mark.parametrize("platform", ["linux", pytest.param("portable", marks=pytest.mark.nightly)])
def test_a_run_that_waits_for_input_wakes_none_of_its_processes(
    tmp_path: Path, platform: str
) -> None:
    path = fleets.fleet(tmp_path, WAITING)
    where = {"fleet": str(path), "base": str(tmp_path), "run_dir": str(tmp_path / "run")}
    other = tmp_path / "other"
    other.mkdir()
    clock = fleets.fleet(other, fleets.ECHO), fleets.items(other, 3)
    with Living(Job(**where, platform=platform), feed=True) as living:
        living.tell({"id": 1}, {"id": 2})
        living.until(lambda: len(living.lines()) == 2)
        pids = [living.supervisor, *fleets.children_of(living.supervisor)]
        counts: list[list[int]] = []
        while len(counts) < 2 or counts[-1] != counts[-2]:
            assert len(counts) < ROUNDS_MAX, counts
            # Another run takes its time: whoever looks now and then would do so meanwhile.
            run(*clock, run_dir=other / str(len(counts)), stdin=None)
            counts.append([switches(pid) for pid in pids])
        assert len(pids) >= 4  # The supervisor, two agents, inference; on Linux, who syncs.
        living.tell({"id": 3})
        living.until(lambda: len(living.lines()) == 3)
        assert living.end()["state"] == "finished"
