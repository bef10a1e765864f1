"""Overdue: silence is no CPU and no word, looked at now and then, only while somebody works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from lockstep.workers.loop import Handler, Loop, Timer
from lockstep.workers.overdue import LOOKS, Overdue, Suspect, cpu_ticks


class Looks(Loop):
    """A loop whose timers are fired by the test: time itself plays no part."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []
        self.waiting: list[Handler] = []

    def after(self, seconds: float, handler: Handler) -> Timer:
        self.asked.append(seconds)
        self.waiting.append(handler)
        return Timer(0.0, 0, handler)

    def look(self) -> bool:
        """Fire what is due; whether anything was."""
        due, self.waiting = self.waiting, []
        for handler in due:
            handler()
        return bool(due)


class World:
    """One process as the test wants it to look."""

    def __init__(self, overdue_s: float = 8.0) -> None:
        self.loop = Looks()
        self.cpu: int | None = 100
        self.cpu_asked = 0
        self.pid, self.said, self.works = 7, 0, True
        self.killed: list[str] = []
        self.overdue = Overdue(self.loop, overdue_s, self._cpu)
        self.overdue.watch(self._suspects)

    def _cpu(self, pid: int) -> int | None:
        assert pid == self.pid
        self.cpu_asked += 1
        return self.cpu

    def _suspects(self) -> list[Suspect]:
        return [Suspect("a", self.pid, self.said, self.killed.append)] if self.works else []

    def looks(self, count: int, between: Callable[[], None] = lambda: None) -> None:
        for _ in range(count):
            assert self.loop.look()
            between()


@pytest.fixture
def world() -> World:
    world = World()
    world.overdue.arm()
    return world


def test_who_is_silent_for_so_many_looks_is_killed_once(world: World) -> None:
    world.looks(LOOKS + 1)  # The first two learn what it has said and used so far.
    assert world.killed == []
    world.looks(1)
    assert world.killed == ["said nothing and used no CPU for 8 s"]
    world.looks(10)
    assert len(world.killed) == 1
    assert set(world.loop.asked) == {8.0 / LOOKS}


def test_a_word_or_cpu_time_or_a_new_process_begins_the_count_anew(world: World) -> None:
    def says() -> None:
        world.said += 1

    def works() -> None:
        assert world.cpu is not None
        world.cpu += 1

    def is_new() -> None:
        world.pid += 1

    for sign in (says, works, is_new):
        for _ in range(3):
            world.looks(LOOKS)
            sign()
        world.looks(20, sign)
    assert world.killed == []
    world.looks(LOOKS + 2)
    assert len(world.killed) == 1


def test_who_speaks_is_not_looked_up_in_proc(world: World) -> None:
    def says() -> None:
        world.said += 1

    world.looks(50, says)
    assert world.cpu_asked == 0


def test_where_nobody_can_tell_cpu_time_words_alone_count(world: World) -> None:
    world.cpu = None
    world.looks(LOOKS + 1)
    assert len(world.killed) == 1


def test_nobody_looks_while_nobody_works(world: World) -> None:
    world.works = False
    assert world.loop.look()
    assert not world.loop.look() and world.overdue.idle
    world.works = True
    world.overdue.arm()
    world.overdue.arm()
    assert not world.overdue.idle and len(world.loop.waiting) == 1
    world.looks(LOOKS + 2)
    assert len(world.killed) == 1


def test_work_that_was_over_meanwhile_counts_anew(world: World) -> None:
    world.looks(LOOKS + 1)
    world.works = False
    world.looks(1)
    world.works = True
    world.overdue.arm()
    world.looks(LOOKS + 1)
    assert world.killed == []


def test_zero_seconds_are_never() -> None:
    world = World(overdue_s=0)
    assert not world.overdue.idle
    world.overdue.arm()
    assert not world.loop.look()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_cpu_time_of_a_process_grows_while_it_works_and_stays_while_it_is_stopped() -> None:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        first = cpu_ticks(process.pid)
        assert first is not None
        while (cpu_ticks(process.pid) or 0) < first + 3:
            pass
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        stopped = cpu_ticks(process.pid)
        mine = cpu_ticks(os.getpid())
        while cpu_ticks(os.getpid()) == mine:
            pass  # Time passes: ours.
        assert cpu_ticks(process.pid) == stopped
    finally:
        process.kill()
        process.wait()
    assert cpu_ticks(process.pid) is None
