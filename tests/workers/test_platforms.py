"""One fleet on both platforms: what is computed does not depend on how processes are started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fleets
import pytest
from living import Living, kill

from lockstep.engine.errors import RunStopped, UsageError
from lockstep.shm import claims
from lockstep.workers import Run, resume, run, verify
from lockstep.workers.job import Job
from lockstep.workers.launch import ENVIRONMENT, PLATFORM

# What a system has that is not Linux, as far as Python can show it: in every process of a run.
LACKS = """
import mmap, os, select, signal
for module, names in (
    (os, "fork forkpty memfd_create eventfd pidfd_open posix_fallocate fdatasync pipe2"),
    (os, "sched_setaffinity sched_getaffinity"),
    (mmap, "MADV_DONTFORK MADV_DOFORK"),
    (signal, "pidfd_send_signal"),
    (select, "epoll"),
):
    for name in names.split():
        delattr(module, name)
"""
DOOR = """
[fleet]
name = "door"
[sources.feed]
kind = "stdin"
[agents.echo]
module = "GUESTS/echo.wasm"
replicas = 2
input = "broadcast"
"""
TOOL = """
[fleet]
name = "tool"
[tools.date]
command = ["/bin/date"]
[agents.echo]
module = "GUESTS/echo.wasm"
tools = ["date"]
"""


@pytest.fixture(autouse=True)
def claims_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a run leaves for sweepers, apart from that of others."""
    folder = tmp_path / "claims"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder


def chain(folder: Path, name: str) -> Run:
    path = fleets.fleet(folder, fleets.CHAIN)
    return run(path, input=fleets.items(folder, 3), run_dir=folder / name, stdin=None)


def job(folder: Path, name: str = "run") -> Job:
    path = fleets.fleet(folder, DOOR)
    where = {"fleet": str(path), "base": str(folder), "run_dir": str(folder / name)}
    return Job(**where, platform="portable")


def segments(supervisor: int) -> list[str]:
    return [entry.name for entry in Path("/dev/shm").iterdir() if f"-{supervisor}-" in entry.name]


def test_both_platforms_give_one_digest_also_where_everything_of_linux_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linux = chain(tmp_path, "linux")
    with monkeypatch.context() as patch:
        patch.setenv(PLATFORM, "portable")
        (tmp_path / "sitecustomize.py").write_text(LACKS)
        patch.setenv("PYTHONPATH", str(tmp_path))
        portable = chain(tmp_path, "portable")
    assert portable.summary["digest"] == linux.summary["digest"]
    outputs = [(tmp_path / name / "output.jsonl").read_bytes() for name in ("linux", "portable")]
    assert outputs[0] == outputs[1] != b""
    assert list(claims.folder().iterdir()) == []  # Everything was taken away at the end.
    again = verify(tmp_path / "portable")  # On Linux.
    assert again.equal and again.whole


def test_everybody_killed_on_the_portable_platform_comes_back_and_the_digest_stays(
    tmp_path: Path,
) -> None:
    path, items = fleets.fleet(tmp_path, fleets.CONVERSATION), fleets.items(tmp_path, 6)
    plain = run(path, input=items, run_dir=tmp_path / "plain", stdin=None)
    asked = Job(str(path), str(tmp_path), str(items), run_dir=str(tmp_path / "run"))
    with Living(replace(asked, platform="portable")) as living:
        living.until(lambda: fleets.board_of(living.run).engine.tokens > 30)
        # Nothing outlives it here: what the slots held is computed again from the record.
        kill(fleets.board_of(living.run).engine.pid, living.pid(0), living.pid(1), living.pid(2))
        summary = living.end()
    assert summary["state"] == "finished", summary
    assert summary["restarts"] == 4
    assert summary["digest"] == plain.summary["digest"]
    assert any("keys and values are gone" in note for note in living.notes)


def test_what_a_system_lacks_is_really_gone(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LACKS)
    code = "import os, select; print(hasattr(os, 'fork'), hasattr(select, 'epoll'))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False False\n"


def test_a_fresh_process_maps_its_own_segment_and_holds_its_own_descriptors_only(
    tmp_path: Path,
) -> None:
    with Living(job(tmp_path), feed=True) as living:
        living.tell({"id": 1})
        living.until(lambda: len(living.lines()) == 1)
        mapped, held = [], []
        for index in (0, 1):
            folder = Path(f"/proc/{living.pid(index)}")
            lines = (folder / "maps").read_text().splitlines()
            names = {line.split()[-1] for line in lines if "/dev/shm/" in line}
            mapped.append(names)
            links = {entry.name: str(entry.readlink()) for entry in (folder / "fd").iterdir()}
            held.append(sorted(link.split(":")[0] for n, link in links.items() if int(n) > 2))
        living.end()
    assert [len(names) for names in mapped] == [1, 1] and mapped[0] != mapped[1]
    # Its bell, the supervisor's, the pipe that ends with it; /dev/null is the mapping's.
    assert held == [["/dev/null", "pipe", "pipe", "pipe"]] * 2


def test_nobody_stays_when_the_supervisor_is_killed_and_the_next_run_sweeps(
    tmp_path: Path,
) -> None:
    with Living(job(tmp_path), feed=True) as living:
        living.tell({"id": 1})
        living.until(lambda: len(living.lines()) == 1)
        children = [living.pid(0), living.pid(1)]
        supervisor = living.supervisor
        kill(supervisor)
        living.wait()
        while not all(map(fleets.gone, children)):  # The test's own time-out ends a failure.
            os.sched_yield()
    left = segments(supervisor)
    assert len(left) == 4  # The engine's slice, two agents' and the board.
    with Living(job(tmp_path, "next"), feed=True) as living:
        assert segments(supervisor) == []
        living.end()
    assert list(claims.folder().iterdir()) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PLATFORM, "portable")
        assert resume(tmp_path / "run", stdin=None).summary["state"] == "finished"


def test_an_interrupt_to_the_whole_group_while_processes_start_ends_in_one_line(
    tmp_path: Path,
) -> None:
    path = fleets.fleet(tmp_path, DOOR)
    code = """
import os, signal, sys
from lockstep.workers import fresh
whole = fresh.subprocess.Popen
def start(*arguments, **named):
    process = whole(*arguments, **named)
    os.killpg(0, signal.SIGTERM)
    return process
fresh.subprocess.Popen = start
from lockstep.workers.supervisor import main
sys.exit(main())
"""
    asked = Job(fleet=str(path), base=str(tmp_path), platform="portable")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        input=asked.to_json() + "\n",
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert done.stderr == "" and '"error"' in done.stdout
    assert done.returncode == 130, done.stdout


def test_tools_are_refused_where_they_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLATFORM, "portable")
    path = fleets.fleet(tmp_path, TOOL)
    with pytest.raises(UsageError, match=r"\[tools\]: the platform 'portable' cannot run tools"):
        run(path, input=fleets.items(tmp_path, 1), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_platform_that_there_is_not_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLATFORM, "vms")
    path = fleets.fleet(tmp_path, fleets.ECHO)
    with pytest.raises(UsageError, match="LOCKSTEP_PLATFORM: platform 'vms', expected one of"):
        run(path, input=fleets.items(tmp_path, 1), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_supervisors_killed_a_hundred_times_leave_nothing(tmp_path: Path) -> None:
    for number in range(100):
        with Living(job(tmp_path, f"run{number}"), feed=True) as living:
            pids = [living.pid(0), living.pid(1)]
            os.kill(living.supervisor, signal.SIGKILL)
            living.wait()
            while not all(map(fleets.gone, pids)):
                os.sched_yield()
            before = segments(living.supervisor)
        assert len(before) == 4
    assert len(claims.sweep()) == 4  # Of the last one: each swept what the one before had left.
    assert list(claims.folder().iterdir()) == []


# Python for the supervisor's process: a small file system of its own for shared memory.
SMALL = """
import ctypes
libc = ctypes.CDLL(None)
assert libc.unshare(0x20000) == 0
assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
assert libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=SIZE") == 0
"""


@pytest.mark.parametrize(
    ("platform", "size", "replicas", "refused"),
    [
        ("linux", "16k", 2, ""),  # The board alone lies there.
        ("linux", "4k", 40, r"40 agents need 7\.7 KiB of shared memory .*, there is 4\.0 KiB"),
        ("portable", "64k", 2, r"2 agents need 1\.\d MiB of shared memory .* is 64\.0 KiB"),
    ],
)
def test_small_shared_memory_is_enough_or_is_refused_with_both_numbers(
    tmp_path: Path, platform: str, size: str, replicas: int, refused: str
) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace allowed here")
    asked = replace(job(tmp_path), platform=platform)
    path = Path(asked.fleet)
    path.write_text(path.read_text().replace("replicas = 2", f"replicas = {replicas}"))
    with Living(asked, feed=True, before=SMALL.replace("SIZE", size)) as living:
        if not refused:
            living.tell({"id": 1})
        summary = living.end()
    if not refused:
        assert summary["state"] == "finished" and summary["items_out"] == 1
    else:
        assert re.search(refused, summary["message"]), summary
        assert "--shm-size" in summary["message"] and not living.run.exists()


def test_a_board_that_is_shrunk_under_a_run_ends_it_by_name_and_it_goes_on_afterwards(
    tmp_path: Path,
) -> None:
    path, items = fleets.fleet(tmp_path, fleets.CHAIN), fleets.items(tmp_path, 3)
    plain = run(path, input=items, run_dir=tmp_path / "plain", stdin=None)

    def shrink(what: str, value: object) -> None:
        if what == "run":
            name = json.loads(Path(str(value), "board.json").read_text())["name"]
            os.truncate(f"/dev/shm{name}", 0)

    with pytest.raises(RunStopped, match=r"ended with SIGBUS; the journal in .* is whole"):
        run(path, input=items, run_dir=tmp_path / "run", stdin=None, listen=shrink)
    assert resume(tmp_path / "run", stdin=None).summary["digest"] == plain.summary["digest"]
