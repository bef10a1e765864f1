"""Forking children: the discipline, shown with real processes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lockstep.engine.errors import LockstepBug, UsageError
from lockstep.workers import spawn

# The tests run forks in an interpreter of their own: pytest's has what its plugins started.
PRELUDE = "import os, sys, signal, json\nfrom lockstep.workers import spawn\n"


def python(code: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, check=False
    )


def test_a_child_that_handles_signals_does_not_wake_its_parent() -> None:
    code = """
reading, writing = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
def body():
    signal.signal(signal.SIGUSR1, lambda *a: None)
    os.kill(os.getpid(), signal.SIGUSR1)
    return 0
spawn.fork('c', body, [writing]).reap()
try:
    print(os.read(reading, 9))
except BlockingIOError:
    print('nothing')
"""
    assert python(code).stdout == "nothing\n"


def test_a_thread_at_fork_is_refused_and_counted() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(LockstepBug, match=r"fork of x: \d+ threads"):
            spawn.fork("x", lambda: 0, [])
    finally:
        stop.set()
        thread.join()


def test_a_kernel_without_room_for_a_process_is_told() -> None:
    code = """
import resource
from lockstep.engine.errors import RunStopped
os.setgroups([])
os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    spawn.fork('agent x', lambda: 0, [])
except RunStopped as error:
    print(error)
"""
    if os.geteuid() != 0:
        code = code.replace("os.setgroups([])\nos.setresuid(65534, 65534, 65534)\n", "")
    assert python(code).stdout == "fork of agent x: the kernel has no room for one more process\n"


def test_a_child_leaves_with_its_status_and_is_reaped_once() -> None:
    done = python("c = spawn.fork('c', lambda: 7, [])\nprint(c.reap())")
    assert done.stdout == "7\n", done.stderr


def test_a_child_keeps_its_own_descriptors_only() -> None:
    code = """
r, w = os.pipe()
others = [os.open('/etc/hostname', os.O_RDONLY) for _ in range(20)]
def body():
    links = []
    for n in range(256):
        try:
            links.append(os.readlink(f'/proc/self/fd/{n}'))
        except OSError:
            pass
    os.write(w, json.dumps(links).encode())
    return 0
spawn.fork('c', body, [w]).reap()
os.close(w)
print(os.read(r, 9999).decode())
"""
    done = python(code)
    standard_in, standard_out, _, *rest = json.loads(done.stdout)
    assert standard_in == standard_out == "/dev/null"
    assert [link.split(":")[0] for link in rest] == ["pipe"]


def test_a_child_ignores_what_goes_to_the_group_and_resets_the_rest() -> None:
    code = """
signal.signal(signal.SIGUSR1, lambda *a: None)
def body():
    # As the kernel sees it: bit n - 1 of a mask is signal n.
    lines = dict(line.split(':') for line in open('/proc/self/status') if line[:3] == 'Sig')
    ignored, caught = int(lines['SigIgn'], 16), int(lines['SigCgt'], 16)
    group = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    reset = [signal.SIGUSR1, signal.SIGPIPE, signal.SIGCHLD]
    if any(caught >> (n - 1) & 1 for n in group + reset):
        return 4
    return 3 if [ignored >> (n - 1) & 1 for n in group + reset] == [1, 1, 1, 0, 0, 0] else 5
print(spawn.fork('c', body, []).reap())
"""
    assert python(code).stdout == "3\n"


def test_an_exception_in_a_child_is_one_line_and_never_comes_back() -> None:
    code = """
def body():
    raise ValueError('broken')
print(spawn.fork('the child', body, []).reap())
"""
    done = python(code)
    assert done.stdout == "70\n"
    assert done.stderr == "lockstep: the child: ValueError: broken\n"


def test_a_child_dies_with_its_parent() -> None:
    code = """
r, w = os.pipe()
def body():
    os.write(w, str(os.getpid()).encode())
    while True:
        signal.pause()
spawn.fork('c', body, [w])
print(os.read(r, 100).decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    pid = int(python(code).stdout)
    while Path(f"/proc/{pid}").exists():  # Until init has reaped it; the test's time-out bounds.
        if "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]:
            break


def test_each_of_many_children_inherits_what_is_lent_to_it_alone() -> None:
    code = """
os.environ['OPENBLAS_NUM_THREADS'] = '1'
from lockstep.shm import Arena
arena = Arena.create([4096] * 3)
arena.seal()
def body():
    maps = [line.split()[0].split('-') for line in open('/proc/self/maps') if 'rw-s' in line]
    return sum(int(end, 16) - int(start, 16) for start, end in maps) // 4096
born = []
births = [spawn.Birth(f'c{n}', body, [], arena.loan(n)) for n in range(3)]
spawn.fork_all(births, born)
spawn.fork_all(births[:1], born)
print([child.name for child in born], [child.reap() for child in born])
print(spawn.fork('d', body, []).reap())  # All is sealed again.
"""
    assert python(code).stdout == "['c0', 'c1', 'c2', 'c0'] [1, 1, 1, 1]\n0\n"


def test_children_before_the_one_that_there_is_no_room_for_are_known() -> None:
    code = """
import resource
from lockstep.engine.errors import RunStopped
limit = lambda *_: resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
if os.geteuid() == 0:
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
births = [spawn.Birth('a', lambda: 3, [], (lambda *_: None, 0, 0)),
          spawn.Birth('b', lambda: 4, [], (limit, 0, 0))]
born = []
try:
    spawn.fork_all(births, born)
except RunStopped as error:
    print(error, [child.reap() for child in born])
"""
    said = "fork of b: the kernel has no room for one more process [3]\n"
    assert python(code).stdout == said


def test_call_returns_what_the_child_made() -> None:
    code = "print(spawn.call('x', lambda: bytes(300000) + b'end', 60, 1 << 30)[-3:])"
    assert python(code).stdout == "b'end'\n"


def test_call_hands_on_a_refusal_as_a_usage_error() -> None:
    code = """
from lockstep.engine.errors import UsageError
def body():
    raise UsageError('module x is no module')
try:
    spawn.call('x', body, 60, 1 << 30)
except UsageError as error:
    print(error)
"""
    assert python(code).stdout == "module x is no module\n"


def test_call_ends_a_child_that_takes_too_long() -> None:
    code = """
from lockstep.engine.errors import UsageError
def body():
    while True:
        pass
try:
    spawn.call('bomb', body, 0.2, 1 << 30)
except UsageError as error:
    print(error)
"""
    assert python(code).stdout == "bomb: took longer than 0.2 s and was ended\n"


def test_call_names_the_memory_limit() -> None:
    code = """
from lockstep.engine.errors import UsageError
try:
    spawn.call('bomb', lambda: bytes(1 << 30), 60, 64 << 20)
except UsageError as error:
    print(error)
"""
    assert python(code).stdout == "bomb: more than 64 MiB of memory\n"


def test_confined_processes_get_no_new_privileges_and_make_none() -> None:
    code = """
def body():
    spawn.confine()
    import resource
    text = open('/proc/self/status').read()
    limits = resource.getrlimit(resource.RLIMIT_NPROC)
    return 5 if 'NoNewPrivs:\\t1' in text and limits == (0, 0) else 6
print(spawn.fork('c', body, []).reap())
"""
    assert python(code).stdout == "5\n"


def test_kill_after_the_end_is_harmless() -> None:
    code = """
c = spawn.fork('c', lambda: 0, [])
os.waitid(os.P_PIDFD, c.descriptor, os.WEXITED | os.WNOWAIT)
c.kill()
print(c.reap())
"""
    assert python(code).stdout == "0\n"


def test_core_files_are_off_in_children() -> None:
    code = """
import resource
def body():
    return 5 if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) else 6
print(spawn.fork('c', body, []).reap())
"""
    assert python(code).stdout == "5\n"


def test_this_process_was_left_alone() -> None:
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    assert resource.getrlimit(resource.RLIMIT_NPROC) != (0, 0)
    assert UsageError.exit_code == 2 and os.getpid() > 1
