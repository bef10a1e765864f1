"""Scratch folders: gone at the end, swept when their maker was killed, never while it lives."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers.scratch import RUN, Scratch

HOLD = """
from lockstep.workers.scratch import Scratch
import sys
with Scratch() as scratch:
    (scratch.path / "left").write_text("something")
    print(scratch.path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path


def _holder() -> "tuple[subprocess.Popen[str], Path]":
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        pass
    process.wait()


def test_a_scratch_folder_is_private_and_gone_at_the_end_with_its_parent(place: Path) -> None:
    with Scratch() as scratch:
        assert scratch.path.stat().st_mode & 0o777 == 0o700
        (scratch.path / "file").write_text("x")
        with Scratch() as other:
            assert other.path.parent == scratch.path.parent and other.path != scratch.path
        assert not other.path.exists() and (scratch.path / "file").exists()
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_swept_at_the_next_start(place: Path) -> None:
    process, path = _holder()
    process.send_signal(signal.SIGKILL)
    _end(process)
    assert (path / "left").exists()
    with Scratch():
        assert not path.exists()
    assert list(place.iterdir()) == []


def test_the_folder_of_a_living_process_is_not_swept() -> None:
    process, path = _holder()
    with Scratch():
        assert (path / "left").read_text() == "something"
    _end(process)
    assert process.returncode == 0 and not path.exists()


def test_a_run_that_outlives_its_maker_is_not_swept() -> None:
    with ExitStack() as stack:
        scratch = stack.enter_context(Scratch())
        run = scratch.path.parent / "orphan" / RUN
        run.mkdir(parents=True)
        lock = os.open(run / "run.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Scratch():
            assert run.exists()
        os.close(lock)
        with Scratch():
            assert not run.exists()


def test_a_folder_of_somebody_else_is_not_used(place: Path) -> None:
    parent = place / f"lockstep-{os.getuid()}"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(UsageError, match="others may write in it"), Scratch():
        pass
    parent.chmod(0o700)
    parent.rmdir()
    parent.symlink_to(place)
    with pytest.raises(UsageError, match="cannot make a temporary folder"), Scratch():
        pass


def test_a_place_that_cannot_be_written_is_one_clear_error(place: Path) -> None:
    (place / f"lockstep-{os.getuid()}").write_text("a file")
    with pytest.raises(UsageError, match="TMPDIR names another place"), Scratch():
        pass
