"""Observers of a run: unrelated processes that read its board, and that it never notices."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import fleets
from living import Living

from lockstep.workers import run
from lockstep.workers.job import Job

# Reads for ever and says how it goes: what it saw must be whole, and never go back.
OBSERVER = """
import sys, time
from lockstep.shm import BoardReader
reader = BoardReader.attach(sys.argv[1])
before = [0] * len(reader.snapshot().agents)
print("attached", flush=True)
while True:
    shown = reader.snapshot()
    turns = [agent.turns for agent in shown.agents]
    assert all(a <= b for a, b in zip(before, turns)), (before, turns)
    assert [agent.index for agent in shown.agents] == list(range(len(turns)))
    before = turns
    print(sum(turns), shown.engine.tokens, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def observer(board: str, pause_s: float) -> subprocess.Popen[str]:
    """One that has attached; it pauses so long between looks."""
    command = [sys.executable, "-c", OBSERVER, board, str(pause_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "attached\n"
    return process


def test_observers_that_are_killed_stopped_or_slow_leave_the_run_as_it_is(tmp_path: Path) -> None:
    path, items = fleets.fleet(tmp_path, fleets.CHAIN), fleets.items(tmp_path, 6)
    plain = run(path, input=items, run_dir=tmp_path / "plain", stdin=None)
    asked = Job(str(path), str(tmp_path), str(items), run_dir=str(tmp_path / "run"))
    with Living(asked) as living:
        os.kill(living.supervisor, signal.SIGSTOP)  # It begins when everybody looks.
        board = json.loads((living.run / "board.json").read_text())["name"]
        killed, stopped, slow, busy = (observer(board, each) for each in (0, 0, 10, 0.001))
        everybody = (killed, stopped, slow, busy)
        try:
            os.kill(stopped.pid, signal.SIGSTOP)
            maps = Path(f"/proc/{stopped.pid}/maps").read_text().splitlines()
            os.kill(living.supervisor, signal.SIGCONT)
            assert killed.stdout is not None
            while killed.stdout.readline() == "0 0\n":
                pass  # Until something has happened.
            killed.kill()
            summary = living.end()
        finally:
            for process in everybody:
                process.kill()
            seen = [process.communicate()[0].splitlines() for process in everybody]
    assert [line.split()[1] for line in maps if board in line] == ["r--s"]
    assert summary["digest"] == plain.summary["digest"]
    outputs = [tmp_path / name / "output.jsonl" for name in ("plain", "run")]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert not (Path("/dev/shm") / board[1:]).exists()
    for lines in seen:  # None stopped over what it saw; the last line may be torn.
        assert all(re.fullmatch(r"\d+ \d+", line) for line in lines[:-1])
    assert len(seen[everybody.index(busy)]) > 1
