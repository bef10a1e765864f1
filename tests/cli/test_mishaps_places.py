"""Mishaps of places: folders that are gone, closed, somebody else's or full."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# A process without these is stopped by permissions, whoever it belongs to (linux/capability.h).
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
LIBC = ctypes.CDLL(None)
RUN = ("run", "trap.toml", "--input", "items.jsonl")


def _one_line(result: Any, expected: str, code: int = 2) -> None:
    assert (result.code, result.out) == (code, ""), result
    assert result.err.startswith("lockstep: error: ") and result.err.count("\n") == 1, result.err
    assert expected in result.err


def _obey() -> None:
    """In the child: what a folder forbids is forbidden to root as well."""
    if os.geteuid() == 0:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            assert LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


@pytest.fixture
def closed(place: Any) -> Iterator[Any]:
    """The working folder of the test, which may be read and not written."""
    place.path.chmod(0o555)
    yield place
    place.path.chmod(0o755)


def test_a_working_folder_that_was_deleted_is_named(place: Any) -> None:
    gone = place.path / "gone"
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    command = [sys.executable, "-m", "lockstep.cli.main", *RUN]
    done = subprocess.run(["/bin/sh", "-c", script, "sh", str(gone), *command], env=place.env,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "lockstep: error: the working folder does not exist any more: change to another one\n"
    )


def test_a_folder_that_cannot_be_written_is_named(closed: Any) -> None:
    before = closed.names()
    result = closed.lockstep(*RUN, preexec_fn=_obey)
    _one_line(result, "runs: cannot make the run folder: Permission denied")
    result = closed.lockstep("graph", "trap.toml", "--output", "trap.svg", preexec_fn=_obey)
    _one_line(result, "trap.svg: cannot write the graph there: Permission denied")
    assert closed.names() == before


@pytest.mark.parametrize("verb", [("resume",), ("journal", "check"), ("diff", ".")], ids=" ".join)
def test_a_run_that_may_not_be_read_is_named(done: Any, place: Any, verb: tuple[str, ...]) -> None:
    run = place.path / "run"
    shutil.copytree(done[0].path / "runs/small-1", run)
    run.chmod(0o000)
    _one_line(place.lockstep(*verb, "run", preexec_fn=_obey), "Permission denied")
    run.chmod(0o700)


def test_a_fleet_that_may_not_be_read_is_named(place: Any) -> None:
    (place.path / "trap.toml").chmod(0o000)
    result = place.lockstep(*RUN, preexec_fn=_obey)
    _one_line(result, "trap.toml: cannot read the fleet file: Permission denied")


def test_without_a_home_a_run_is_made_and_a_unit_is_refused(place: Any) -> None:
    unset = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    homeless = replace(place, env={k: v for k, v in place.env.items() if k not in unset})
    assert homeless.lockstep(*RUN).code == 3
    _one_line(homeless.lockstep("service", "install", "--user", "asks.toml"), "HOME is not set")


def test_a_cache_that_cannot_be_used_costs_nothing_but_time(place: Any) -> None:
    (place.path / "file").touch()
    env = place.env | {"XDG_CACHE_HOME": str(place.path / "file"), "TMPDIR": "/nowhere"}
    other = replace(place, env=env)
    assert other.lockstep(*RUN, "--run-dir", "run").code == 3


def test_a_run_folder_below_a_file_is_refused(place: Any) -> None:
    result = place.lockstep(*RUN, "--run-dir", "items.jsonl/run")
    _one_line(result, "items.jsonl/run: cannot make the run folder: Not a directory")


@pytest.fixture
def small(place: Any) -> Iterator[Path]:
    """A disk of 700 KiB, a run's reserve and a little more."""
    path = place.path / "small"
    path.mkdir()
    _mount(path, "size=700k", "mode=700")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def _mount(path: Path, *options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")


@pytest.mark.nightly  # tests/workers/test_full_disk.py with every commit.
def test_a_full_disk_ends_a_run_that_goes_on_when_there_is_room(place: Any, small: Path) -> None:
    fleet = '[schedule]\nitems_in_flight_max = 8\n[agents.echo]\nmodule = "{guests}/echo.wasm"\n'
    place.write("echo.toml", fleet + 'input = "broadcast"\n')
    items = (f'{{"id": {n}, "text": "{"x" * 500}"}}\n' for n in range(400))
    (place.path / "many.jsonl").write_text("".join(items))
    args = ("run", "echo.toml", "--input", "many.jsonl", "--json", "--run-dir")
    whole = place.lockstep(*args, "whole").json
    stopped = place.lockstep(*args, "small/run")
    assert stopped.code == 3 and stopped.json["resumable"]
    assert "No space left on device; the run stops" in stopped.json["reason"]
    assert f"lockstep resume {small / 'run'}" in stopped.err
    again = place.lockstep("resume", "small/run")
    assert again.code in (2, 3) and "No space left on device" in again.err + again.out
    _mount(small, "remount", "size=16m")
    done = place.lockstep("resume", "small/run", "--json")
    assert (done.code, done.json["digest"]) == (0, whole["digest"])
