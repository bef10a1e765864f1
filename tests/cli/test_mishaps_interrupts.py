"""Ctrl-C at any moment: one line, exit code 130, nothing lost, and `resume` makes it whole.

Each moment is a point that a process of the run is at (tests/support/points.py), so it is that
moment on any machine. One run is interrupted at all of them, life after life.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import interrupting
import pytest
from killing import SUPERVISOR, Plan, Stage
from points import STARTING, SYNC

from lockstep.workers.identity import read_journal

SUPPORT = Path(interrupting.__file__).parent
MODULE = Path(__file__).parents[1] / "guests" / "asker.wasm"
RUN = ("run", "one.toml", "--input", "items.jsonl", "--durability", "sync", "--run-dir", "run")

# One item after the other, so that there is something left to do wherever it is interrupted.
ASKS = """
[schedule]
items_in_flight_max = 1
[models.default]
path = "{model}"
providers = ["cpu"]
intra_op_threads = 1
[agents.ask]
module = "{guests}/asker.wasm"
input = "broadcast"
config = {{ tokens = 4 }}
"""
# Where there is no run yet, then where there is one. One life each.
BEFORE = {
    "compiling": Stage(STARTING, f"[agents.ask] {MODULE}: compiling it"),
    "loading the model": Stage(STARTING, "inference"),
}
WITHIN = {
    "forking": Stage("supervisor: an agent was forked", SUPERVISOR),
    "syncing": Stage("sync: before a sync", SYNC),
    "the first step": Stage("inference: before a step", "inference"),
    "in the middle of prefill": Stage("inference: before a chunk of prefill", "inference"),
    "in the middle of decoding": Stage("inference: after the run of a decode", "inference", 2),
    "resuming": Stage("resuming: replayed, nothing changed yet", SUPERVISOR),
    "writing the output": Stage("supervisor: half of an output write done", SUPERVISOR),
}
SOME = ("syncing", "in the middle of decoding", "resuming")  # With every commit.
LATE = Stage("supervisor: everybody ended, journal open", SUPERVISOR)


@dataclass(frozen=True)
class Interrupted:
    """A command line that is interrupted as a plan says."""

    place: Any
    folder: Path

    def start(self, plan: Plan, *args: str) -> "subprocess.CompletedProcess[str]":
        """One command under a plan."""
        command = [sys.executable, "-P", "-m", "interrupting", plan.to_json(), *args]
        return subprocess.run(command, cwd=self.place.path, stdin=subprocess.DEVNULL,
                              env=self.place.env | {"PYTHONPATH": str(SUPPORT)},
                              capture_output=True, text=True, timeout=120, check=False)  # fmt: skip

    def lockstep(self, stage: Stage, *args: str) -> "subprocess.CompletedProcess[str]":
        """One command, interrupted once, by a plan of its own."""
        self.folder.mkdir()
        interrupting.prepare(self.folder)
        plan = Plan(str(self.folder), (Stage(stage.point, stage.process, stage.nth, "interrupt"),))
        done = self.start(plan, *args)
        assert plan.done == 1, (stage.point, done)
        for entry in self.folder.iterdir():
            entry.unlink()
        self.folder.rmdir()
        told = done.stderr.splitlines()
        assert sum(line.startswith("lockstep: stopping: ") for line in told) == 1, told
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr
        return done


@pytest.fixture
def interrupted(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    place.write("one.toml", ASKS)
    return Interrupted(place, tmp_path_factory.mktemp("plan") / "now")


@pytest.mark.parametrize("moment", BEFORE)
def test_before_there_is_a_run_nothing_is_left(interrupted: Interrupted, moment: str) -> None:
    before = interrupted.place.names()
    done = interrupted.lockstep(BEFORE[moment], *RUN)
    assert (done.returncode, done.stdout) == (130, "")
    last = done.stderr.splitlines()[-1]
    assert last == "lockstep: error: interrupted; there was no run yet"
    assert interrupted.place.names() == before


@pytest.mark.parametrize(
    "moments", [SOME, pytest.param(tuple(WITHIN), marks=pytest.mark.nightly)], ids=("some", "all")
)
def test_within_a_run_nothing_is_lost_at_any_moment(
    place: Any, interrupted: Interrupted, moments: tuple[str, ...]
) -> None:
    run = place.path / "run"
    undisturbed = place.lockstep(*RUN[:-1], "whole", "--json").json
    args = RUN
    for moment in moments:
        done = interrupted.lockstep(WITHIN[moment], *args)
        assert done.returncode == 130, (moment, done.stderr)
        assert f"lockstep resume {run}" in done.stdout, (moment, done)
        assert read_journal(run).torn_bytes == 0, moment
        args = ("resume", "run")
    done = interrupted.lockstep(LATE, "resume", "run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["state"], found["digest"]) == ("finished", undisturbed["digest"])
    assert (run / "output.jsonl").read_bytes() == Path(undisturbed["output"]).read_bytes()


REPEATED = {
    "verify": Stage("inference: after the run of a decode", "inference", 2),
    "replay": Stage("supervisor: an agent was forked", SUPERVISOR),
}


@pytest.mark.parametrize("verb", REPEATED)
def test_a_repetition_that_is_interrupted_leaves_the_run_as_it_is(
    asked: Any, interrupted: Interrupted, verb: str
) -> None:
    run = asked[0].path / "runs/asks-1"
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    done = interrupted.lockstep(REPEATED[verb], verb, str(run))
    assert (done.returncode, done.stdout) == (130, "")
    assert "interrupted" in done.stderr.splitlines()[-1]
    assert "resume" not in done.stderr and "no run" not in done.stderr
    assert before == sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))


def test_a_bug_under_way_is_a_line_a_file_and_a_run_that_goes_on(
    place: Any, interrupted: Interrupted
) -> None:
    interrupted.folder.mkdir()
    stage = Stage("supervisor: an agent was forked", SUPERVISOR, how="accident")
    args = ("run", "trap.toml", "--input", "items.jsonl", "--run-dir", "run")
    done = interrupted.start(Plan(str(interrupted.folder), (stage,)), *args)
    assert done.returncode == 70 and "Traceback" not in done.stdout + done.stderr
    assert "state        stopped: a bug in Lockstep: MemoryError: told to fail" in done.stdout
    assert f"lockstep resume {place.path / 'run'}" in done.stdout
    (told,) = re.findall(r"MemoryError: told to fail \(all of it: (.*)\)", done.stderr)
    assert Path(told).read_text().startswith("Traceback (most recent call last):")
    assert place.lockstep("resume", "run", "--json").json["state"] == "finished"
