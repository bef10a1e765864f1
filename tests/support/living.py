"""Living runs: a supervisor that a test listens to, and does things to, while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleets

from lockstep.shm import AgentStatus
from lockstep.workers.job import Job
from lockstep.workers.launch import ENVIRONMENT

SUPERVISOR = "import sys; from lockstep.workers.supervisor import main; sys.exit(main())"


class Living:
    """One run from its job to its summary. Use it in a ``with``: it ends with its block.

    Args:
        job: With a ``run_dir``.
        feed: Whether the test writes lines to its standard input (`tell`).
        before: Python that is executed in the supervisor's process first.

    Attributes:
        notes: That were heard so far.
    """

    def __init__(self, job: Job, *, feed: bool = False, before: str = "") -> None:
        self.run = Path(job.run_dir)
        self.notes: list[str] = []
        self.summary: dict[str, Any] = {}
        reading, self._feed = os.pipe() if feed else (-1, -1)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"{before}\n{SUPERVISOR}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
            pass_fds=[reading] if feed else [],
        )
        if feed:
            os.close(reading)
        assert self._process.stdin is not None
        line = replace(job, stdin=reading).to_json()
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def __enter__(self) -> Living:
        self._hear(lambda what, _: what == "run")
        return self

    def __exit__(self, *_: object) -> None:
        self.close_feed()
        self._process.kill()
        self._process.communicate()

    def tell(self, *items: Any) -> None:
        """Lines for its standard input."""
        for item in items:
            os.write(self._feed, json.dumps(item).encode() + b"\n")

    def close_feed(self) -> None:
        """No more of them."""
        if self._feed >= 0:
            os.close(self._feed)
            self._feed = -1

    @property
    def supervisor(self) -> int:
        """Its pid."""
        return self._process.pid

    def agent(self, index: int) -> AgentStatus:
        """As the board shows it."""
        return fleets.board_of(self.run).agents[index]

    def pid(self, index: int, after: int = 0) -> int:
        """Of an agent's process, which is there; another one than ``after``."""
        while True:
            pid = self.agent(index).pid
            if pid not in (0, after):
                return pid
            assert self._process.poll() is None, self.end()

    def until(self, fact: Callable[[], bool]) -> None:
        """Until something is so; the test's own time-out ends a failure."""
        lived = True  # Before the fact was asked for: the end may be what makes it so.
        while not fact():
            assert lived, self.end()
            lived = self._process.poll() is None

    def until_state(self, index: int, state: int, turns: int = 0) -> int:
        """Until the board shows an agent so; its pid."""
        while True:
            seen = self.agent(index)
            if (seen.state, seen.pid > 0) == (state, True) and seen.turns >= turns:
                return seen.pid
            assert self._process.poll() is None, self.end()

    def lines(self) -> list[Any]:
        """Of the output so far."""
        text = (self.run / "output.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def note(self, part: str) -> str:
        """The next note that has this in it."""
        heard = self._hear(lambda what, value: what == "note" and part in value)
        assert heard, (self.notes, self.summary)
        return self.notes[-1]

    def wait(self) -> None:
        """Until its process has ended, by itself."""
        self._process.wait()

    def end(self) -> dict[str, Any]:
        """Its summary."""
        self.close_feed()
        self._hear(lambda what, _: False)
        return self.summary

    def _hear(self, wanted: Callable[[str, Any], bool]) -> bool:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            ((what, value),) = json.loads(line).items()
            if what == "note":
                self.notes.append(value)
            elif what in ("summary", "error"):
                self.summary = value
            if wanted(what, value):
                return True
        self._process.wait()
        return False


def kill(*pids: int) -> None:
    """SIGKILL to each of them."""
    for pid in pids:
        assert pid > 0, "0 would be our own group"
        os.kill(pid, signal.SIGKILL)
