"""Children die with a supervisor that is killed: by a signal that each of them asks for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from killing import Plan, Stage
from lives import Lives, live, processes_of, wait_for_the_end_of
from scenes import SCENES

SIGKILL_BIT = 1 << (signal.SIGKILL - 1)


@contextmanager
def supervisor_killed(folder: Path, *, unarmed: bool) -> Iterator[Lives]:
    """A run whose supervisor was killed in the middle; who is still there is killed afterwards."""
    stage = Stage("supervisor: an agent was woken", nth=12)
    done = live(SCENES["story"].job(folder), Plan(str(folder), (stage,), unarmed=unarmed))
    try:
        assert "SIGKILL" in str(done.error)
        yield done
    finally:
        for pid in processes_of(done.supervisors[0]):
            os.kill(pid, signal.SIGKILL)  # Of a session that we started, whose leader is dead.


def dying(pid: int) -> bool:
    """Whether a process is gone, or has a SIGKILL that it has not acted on yet.

    The kernel sends the signal before anybody can learn that the supervisor is dead.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if status["State"][0] in "ZX":
        return True
    return any(int(status[key], 16) & SIGKILL_BIT for key in ("SigPnd", "ShdPnd"))


def test_nobody_stays_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with supervisor_killed(tmp_path, unarmed=False) as done:
        wait_for_the_end_of(done.supervisors[0])


def test_without_the_death_signal_they_stay(tmp_path: Path) -> None:
    with supervisor_killed(tmp_path, unarmed=True) as done:
        left = processes_of(done.supervisors[0])
        # The sync process leaves by itself: its socket has ended.
        assert len([pid for pid in left if not dying(pid)]) >= 4
    wait_for_the_end_of(done.supervisors[0])  # Killed by us.
