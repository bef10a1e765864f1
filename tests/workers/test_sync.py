"""The sync process: what is promised was synced, by somebody else than the supervisor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fleets
import pytest

# An interpreter of its own, as a supervisor has: pytest's has what its plugins started. `synced`
# is a file with a line for each fdatasync that was made, whoever made it.
PRELUDE = """
import json, os, signal, sys
from pathlib import Path
from lockstep.engine.errors import JournalError
from lockstep.workers import journal_file
from lockstep.workers.journal_file import JournalFile, segment_name
from lockstep.workers.loop import Loop
from lockstep.workers.storage import Disk
from lockstep.workers.sync import SyncProcess

path = Path(sys.argv[1])
disk = Disk(path)
(path / "synced").touch()
real = os.fdatasync
main = os.getpid()

def fdatasync(descriptor):
    with open(path / "synced", "a") as file:
        real(descriptor)
        size = os.fstat(descriptor).st_size
        file.write(json.dumps([os.getpid() == main, size]) + "\\n")

os.fdatasync = fdatasync
loop = Loop()

def syncs():
    lines = (path / "synced").read_text().splitlines()
    assert not any(json.loads(line)[0] for line in lines), "the supervisor synced"
    return [json.loads(line)[1] for line in lines]

def journal(level, segment_bytes_max=1 << 20):
    file = JournalFile(disk, SyncProcess(disk), level, segment_bytes_max)
    file.attach(loop)
    return file

def until(condition):
    while not condition():
        loop.turn(1.0)

said = []
def say(what):
    return lambda: said.append((what, len(syncs())))

def answer(value):
    print(json.dumps(value))
"""


# Syncs wait until we let go of a lock.
HELD = """
import fcntl
lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT)
fcntl.lockf(lock, fcntl.LOCK_EX)
def held(descriptor):
    again = os.open(path / "lock", os.O_RDWR)
    fcntl.lockf(again, fcntl.LOCK_EX)
    os.close(again)
    fdatasync(descriptor)
os.fdatasync = held
"""


def play(folder: Path, code: str) -> Any:
    """What a piece of code answers."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PROMISES = """
file = journal("sync")
for number in range(4):
    file.write(b"x" * 100)
    file.when_promised(say(number))
until(lambda: len(said) == 4)
file.write(b"y" * 100)
file.when_promised(say(4))
until(lambda: len(said) == 5)
file.close()
answer([said, syncs()])
"""


def test_nothing_is_promised_before_it_is_synced_and_then_in_order(
    tmp_path: Path, mutant: str = ""
) -> None:
    said, synced = play(tmp_path, mutant + PROMISES)
    assert [what for what, _ in said] == [0, 1, 2, 3, 4]
    # Each was told after a sync that covered it; what came while one was under way shares the next.
    for what, count in said:
        assert count and max(synced[:count]) >= 100 * (what + 1)
    assert len(synced) <= 5


def test_a_process_that_answers_without_the_fsync_is_found(tmp_path: Path) -> None:
    mutant = "from lockstep.workers import sync\nsync.sync_one = lambda *_: 0\n"
    with pytest.raises(AssertionError, match=r"assert \(0"):
        test_nothing_is_promised_before_it_is_synced_and_then_in_order(tmp_path, mutant)


# The socket to the process gets a number as in a run of 1,010 agents.
HIGH = """
import fcntl, resource, socket
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
pair = socket.socketpair
def high(*kind):
    ours, theirs = pair(*kind)
    number = fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, 1500)
    ours.close()
    return socket.socket(fileno=number), theirs
socket.socketpair = high
"""


def test_a_high_number_of_a_descriptor_is_like_any_other(tmp_path: Path) -> None:
    code = (
        HIGH
        + """
handle = disk.make("file")
syncer = SyncProcess(disk)
syncer.take(handle)
syncer.ask(2, 7)
assert syncer._socket.fileno() >= 1500
found = syncer.answers(True)
syncer.close()
answer(found)
"""
    )
    assert play(tmp_path, code) == [[2, 7]]


def test_what_comes_while_a_sync_is_under_way_is_synced_as_a_group(tmp_path: Path) -> None:
    code = (
        HELD
        + """
file = journal("sync")
for number in range(100):
    file.write(b"x" * 10)
    file.when_promised(say(number))
loop.turn(0.0)
assert said == []
fcntl.lockf(lock, fcntl.LOCK_UN)
until(lambda: len(said) == 100)
file.close()
answer(syncs())
"""
    )
    assert len(play(tmp_path, code)) == 2


def test_async_promises_what_is_written_and_syncs_in_the_background(tmp_path: Path) -> None:
    code = """
journal_file.BACKGROUND_S = 0.0
file = journal("async")
file.write(b"x" * 100)
file.when_promised(say("written"))
assert (path / segment_name(0)).stat().st_size == 100
assert said == [("written", 0)]
until(lambda: syncs() == [100])
file.write(b"x" * 100)
file.reveal()
until(lambda: syncs() == [100, 200])
file.close()
answer(syncs())
"""
    assert play(tmp_path, code) == [100, 200]


def test_a_failed_sync_stops_and_is_never_tried_again(tmp_path: Path) -> None:
    code = """
import errno
def broken(descriptor):
    fdatasync(descriptor)
    raise OSError(errno.EIO, os.strerror(errno.EIO))
os.fdatasync = broken
file = journal("sync")
file.write(b"x" * 100)
file.when_promised(say("never"))
try:
    until(lambda: False)
except JournalError as error:
    message = str(error)
file.write(b"more")
file.reveal()
file.close()
answer([message, said, syncs()])
"""
    message, said, synced = play(tmp_path, code)
    assert "cannot sync: Input/output error; the run stops" in message
    assert said == [] and synced == [100]


def test_a_process_that_is_killed_while_it_syncs_stops_the_run(tmp_path: Path) -> None:
    code = """
def killed(descriptor):
    fdatasync(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)
os.fdatasync = killed
file = journal("sync")
file.write(b"x" * 100)
file.when_promised(say("never"))
try:
    until(lambda: False)
except JournalError as error:
    message = str(error)
file.close()
answer([message, said, syncs()])
"""
    message, said, synced = play(tmp_path, code)
    assert "SIGKILL" in message
    assert "while it synced; whether that failed cannot be found out any more" in message
    # Neither another process nor we asked again.
    assert said == [] and synced == [100]


def test_a_process_that_is_killed_idle_is_followed_by_another(tmp_path: Path) -> None:
    code = """
file = journal("sync")
syncer = file._syncer
pids = []
for number in range(3):
    file.write(b"x" * 100)
    file.when_promised(say(number))
    until(lambda: len(said) == number + 1)
    pids.append(syncer.pid)
    os.kill(syncer.pid, signal.SIGKILL)
    if number:
        until(lambda: syncer.pid is None)  # Seen at once; or, the first time, by the next request.
    else:
        os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOWAIT)
file.close()
answer([said, len(set(pids)), syncs()])
"""
    said, pids, synced = play(tmp_path, code)
    assert [what for what, _ in said] == [0, 1, 2]
    assert pids == 3
    assert synced == [100, 200, 300]


def test_a_segment_is_synced_before_the_next_one_is_made_and_nobody_waits(tmp_path: Path) -> None:
    code = (
        HELD
        + """
file = journal("async", 250)
shown = []
for number in range(6):
    if file.full:
        file.next_segment()
        assert not (path / segment_name(file._number + 1)).exists()
    file.write(b"%d" % number * 100)
    file.when_promised(say(number))
    shown.append(len(said))
fcntl.lockf(lock, fcntl.LOCK_UN)
until(lambda: len(said) == 6)
file.close()
sizes = [entry.stat().st_size for entry in sorted(path.glob("*.journal"))]
answer([shown, sizes, syncs()])
"""
    )
    shown, sizes, synced = play(tmp_path, code)
    assert shown == [1, 2, 3, 3, 3, 3]  # The fourth waits for the next segment.
    assert sizes == [300, 300]
    assert synced[0] == 300


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    code = """
file = journal("sync")
answer(file._syncer.pid)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(tmp_path)], stdout=subprocess.PIPE, check=False
    )
    pid = int(done.stdout)
    while not fleets.gone(pid):
        pass
    assert pid > 0


@pytest.mark.parametrize("level", ["async", "sync"])
def test_names_are_made_durable_before_anything_in_a_segment_counts(
    tmp_path: Path, level: str
) -> None:
    code = f"""
asked = []
whole = os.fsync
def fsync(descriptor):
    with open(path / "names", "a") as file:
        file.write("%s\\n" % sorted(p.name for p in path.glob("*.journal"))[-1])
    whole(descriptor)
os.fsync = fsync
file = journal({level!r}, 100)
for number in range(3):
    if file.full:
        file.next_segment()
    file.write(b"x" * 100)
    file.when_promised(say(number))
    until(lambda: len(said) == number + 1)
    if number:
        asked.append((path / "names").read_text().split())
file.close()
answer(asked)
"""
    names = [f"0000000{n}.journal" for n in range(3)]
    found = play(tmp_path, code)
    assert found == [names[:2], names]


def test_a_disk_that_does_not_answer_holds_the_end_of_a_run_for_a_while_only(
    tmp_path: Path,
) -> None:
    code = """
from lockstep.workers import sync
sync.ANSWER_S_MAX = 0.3
file = journal("sync")
os.kill(file._syncer.pid, signal.SIGSTOP)
file.write(b"x" * 100)
file.when_promised(say("promised"))
try:
    file.close()
except JournalError as error:
    answer([str(error), said])
"""
    text, said = play(tmp_path, code)
    assert "the disk has not answered for 0.3 s; what was acknowledged stands" in text
    assert said == []


def test_a_sync_process_that_owes_nothing_is_ended_whatever_state_it_is_in(tmp_path: Path) -> None:
    code = """
file = journal("async")
file.write(b"x")
file.settle()
os.kill(file._syncer.pid, signal.SIGSTOP)
file.close()
answer("closed")
"""
    assert play(tmp_path, code) == "closed"
