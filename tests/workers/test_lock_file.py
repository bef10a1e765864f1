"""Lock files: one holder, named; who only looks is in nobody's way."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers import lock_file
from lockstep.workers.folder import LOCK, RunFolder
from lockstep.workers.lock_file import Taken, holder_of, take


@contextmanager
def look(path: Path) -> Iterator[None]:
    """In the middle of a look at who holds a file."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def test_one_holds_it_until_it_lets_go_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder_of(path) is None and not path.exists()
    path.write_text("1234567890\n")  # Of an earlier holder, and longer than ours.
    lock = take(path)
    assert path.read_text() == f"{os.getpid()}\n"
    assert holder_of(path) == os.getpid()
    with pytest.raises(Taken, match=f"process {os.getpid()} holds it"):
        take(path)
    assert holder_of(path) == os.getpid()
    os.close(lock)
    assert holder_of(path) is None
    os.close(take(path))


def test_a_holder_that_has_not_said_who_it_is_holds_it_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = take(path)
    path.write_text("")
    assert holder_of(path) == 0
    with pytest.raises(Taken, match="another process holds it"):
        take(path)
    os.close(lock)


def test_nobody_is_refused_because_somebody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = RunFolder.create(tmp_path / "run", tmp_path, "x")
    made.close()
    seen = look(tmp_path / "run" / LOCK)
    seen.__enter__()
    waits: list[float] = []

    def looks_away(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            seen.__exit__(None, None, None)

    monkeypatch.setattr(lock_file.time, "sleep", looks_away)
    RunFolder.reopen(tmp_path / "run").close()
    assert len(waits) == 3


def test_a_look_that_never_ends_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_file, "LOOKS_S_MAX", 0.0)
    made = RunFolder.create(tmp_path / "run", tmp_path, "x")
    made.close()
    with (
        look(tmp_path / "run" / LOCK),
        pytest.raises(UsageError, match="another process is running it; nothing was touched"),
    ):
        RunFolder.reopen(tmp_path / "run")
    RunFolder.reopen(tmp_path / "run").close()


def test_who_cannot_write_its_pid_holds_it_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock_file.os, "pwrite", full)
    lock = take(tmp_path / "lock")
    assert holder_of(tmp_path / "lock") == 0
    os.close(lock)
