"""Children that are not forked keep the discipline of those that are (test_spawn.py)."""

from __future__ import annotations

import json
import operator
import os
import select
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import fleets
import pytest

from lockstep.engine.errors import RunStopped, UsageError
from lockstep.shm import PipeDoorbell, platform_of
from lockstep.workers import fresh, spawn
from lockstep.workers.spawner import Forking, Fresh, spawner_of

SEVEN = partial(operator.index, 7)


def evaluating(text: str) -> Any:
    """A body that a fresh process can be given: an expression, of which it knows some modules."""
    names = ["json", "os", "resource", "signal", "sys", "time"]
    modules = ", ".join(f"{name}=__import__({name!r})" for name in names)
    return partial(eval, f"(lambda {modules}: {text})()")


def test_each_platform_has_its_spawner() -> None:
    assert isinstance(spawner_of(platform_of("linux")), Forking)
    assert isinstance(spawner_of(platform_of("portable")), Fresh)


def test_a_child_leaves_with_its_status_and_its_descriptor_says_when() -> None:
    child = fresh.start("seven", SEVEN, [])
    assert select.select([child.descriptor], [], [])[0] == [child.descriptor]
    child.kill()  # Harmless after the end.
    assert child.reap() == 7
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(child.descriptor)


def test_a_child_that_is_killed_says_by_what_and_threads_of_its_parent_do_not_matter() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    child = fresh.start("sleeper", evaluating("time.sleep(3600)"), [])
    assert select.select([child.descriptor], [], [], 0)[0] == []
    child.kill()
    assert child.reap() == -signal.SIGKILL
    child.kill()  # Does nothing: its pid may be somebody else's now.
    stop.set()
    thread.join()


def test_a_child_has_its_own_descriptors_only_and_says_nothing_on_standard_output() -> None:
    reading, writing = os.pipe()
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    paths = "[f'/proc/self/fd/{n}' for n in sorted(map(int, os.listdir('/proc/self/fd')))]"
    links = f"[os.readlink(path) for path in {paths} if os.path.islink(path)]"
    body = evaluating(f"os.write({writing}, json.dumps({links}).encode()) and print('x') or 0")
    child = fresh.start("lister", body, [writing])
    assert child.reap() == 0
    standard_in, standard_out, _, *rest = json.loads(os.read(reading, 9999))
    assert standard_in == standard_out == "/dev/null"
    # The one it was given, and the one that ends with it.
    assert [link.split(":")[0] for link in rest] == ["pipe", "pipe"]
    for descriptor in (reading, writing, *others):
        os.close(descriptor)


def test_a_child_ignores_what_goes_to_the_group_and_resets_the_rest() -> None:
    lines = "open('/proc/self/status') if line[:3] == 'Sig' and line[3] in 'IB'"
    mask = "{line[:6]: int(line.split()[1], 16) for line in " + lines + "}"
    group = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    bits = sum(1 << (number - 1) for number in group)
    pipe = 1 << (signal.SIGPIPE - 1)
    body = evaluating(
        f"(lambda m: 3 if m['SigIgn'] & {bits | pipe} == {bits} and not m['SigBlk'] else 5)({mask})"
    )
    assert fresh.start("signals", body, []).reap() == 3
    limit = evaluating("5 if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) else 6")
    assert fresh.start("limits", limit, []).reap() == 5


def test_an_exception_in_a_child_is_one_line_and_its_parents_death_none() -> None:
    code = """
from functools import partial
from lockstep.workers import fresh
from lockstep.shm import PipeDoorbell
print(fresh.start("the child", partial(int, "broken"), []).reap())
bell = PipeDoorbell()
child = fresh.start("orphan", bell.waiting().wait, bell.waiting_descriptors())
bell.close()
print(child.reap())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "70\n0\n"
    assert done.stderr == (
        "lockstep: the child: ValueError: invalid literal for int() with base 10: 'broken'\n"
    )


def test_a_child_leaves_when_its_parent_is_killed() -> None:
    code = """
import os, signal
from lockstep.workers import fresh
from lockstep.shm import PipeDoorbell
bell = PipeDoorbell()
print(fresh.start("orphan", bell.waiting().wait, bell.waiting_descriptors()).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    while not fleets.gone(int(done.stdout)):  # The test's time-out bounds.
        os.sched_yield()
    assert done.stderr == ""


def test_a_ring_gets_to_a_child_by_the_end_that_it_was_handed() -> None:
    bell = PipeDoorbell()
    child = fresh.start("waiter", bell.waiting().wait, bell.waiting_descriptors())
    bell.ring()
    assert child.reap() == int(True)
    bell.close()


def test_call_gives_what_the_child_made_or_says_why_not() -> None:
    start = Fresh().start
    made = evaluating("bytes(300000) + b'end'")
    assert spawn.call("x", made, 60, 1 << 30, start=start)[-3:] == b"end"
    with pytest.raises(UsageError, match="bomb: more than 64 MiB of memory"):
        spawn.call("bomb", evaluating("bytes(1 << 30)"), 60, 64 << 20, start=start)
    with pytest.raises(UsageError, match=r"long: took longer than 0\.2 s and was ended"):
        spawn.call("long", evaluating("time.sleep(3600)"), 0.2, 1 << 30, start=start)


def test_a_system_without_room_for_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RunStopped, match="start of agent x: No such file or directory"):
        fresh.start("agent x", SEVEN, [])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
