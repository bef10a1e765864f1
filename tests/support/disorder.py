"""Disorder for tests of whole runs: other processes that burn cores, fewer cores, processes of the
run that are slow or stand still."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fleets

STOPPED_S = 0.1


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that burn a core each meanwhile."""
    loop = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@contextmanager
def one_core() -> Iterator[None]:
    """This process and what it starts on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Disturber:
    """Listener that slows or stops processes of a run as it goes, for the length of a ``with``.

    Args:
        chance: Which of them.
        nice: Half of them get the lowest priority, once.
        stop: At each progress line one is stopped for a moment.
    """

    def __init__(self, chance: random.Random, *, nice: bool = False, stop: bool = False) -> None:
        self._chance, self._nice, self._stop = chance, nice, stop
        self._timers: list[threading.Timer] = []
        self._supervisor = 0

    def __enter__(self) -> Disturber:
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:  # A thread that is left would make the next fork a bug.
            timer.join()

    def __call__(self, what: str, value: Any) -> None:
        if what == "run":
            self._supervisor = fleets.supervisor_of(value)
        if what != "progress" or not (workers := sorted(fleets.children_of(self._supervisor))):
            return
        if self._nice:
            self._nice = False
            for pid in self._chance.sample(workers, len(workers) // 2):
                with suppress(ProcessLookupError):  # The run ended just now.
                    os.setpriority(os.PRIO_PROCESS, pid, 19)
        if self._stop:
            self._stop_one(self._chance.choice(workers))

    def _stop_one(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            # Nothing else would continue it: a stopped process makes no progress lines.
            timer = threading.Timer(STOPPED_S, _continue, (pid,))
            timer.start()
            self._timers.append(timer)


def _continue(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
