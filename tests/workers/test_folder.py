"""Run folders and what is written into them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers import folder as folders
from lockstep.workers.folder import RunFolder
from lockstep.workers.identity import differences, environment_differences


def test_default_names_count_up_and_skip_what_is_there(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        made = RunFolder.create(None, tmp_path, "vote")
        names.append(made.path.name)
        made.close()
    (tmp_path / "runs/vote-17").mkdir()
    (tmp_path / "runs/vote-x").mkdir()
    last = RunFolder.create(None, tmp_path, "vote")
    last.close()
    assert [*names, last.path.name] == ["vote-1", "vote-2", "vote-3", "vote-18"]


def test_a_folder_and_its_files_are_private(tmp_path: Path) -> None:
    made = RunFolder.create(tmp_path / "run", tmp_path, "x")
    made.close()
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "run/run.lock").stat().st_mode & 0o777 == 0o600


def test_an_orphan_that_still_holds_the_lock_of_its_dead_supervisor_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = process.pid
    made = RunFolder.create(tmp_path / "run", tmp_path, "x")
    (tmp_path / "run/run.lock").write_text(f"{dead}\n")  # Killed behind a fork: here we hold it.
    waits: list[float] = []

    def dies(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            made.close()

    monkeypatch.setattr(folders.time, "sleep", dies)
    assert folders.living_holder_of(tmp_path / "run") is None
    assert len(waits) == 3


def test_the_holder_is_named_while_it_lives(tmp_path: Path) -> None:
    made = RunFolder.create(tmp_path / "run", tmp_path, "x")
    assert folders.holder_of(tmp_path / "run") == os.getpid()
    with pytest.raises(UsageError, match=f"process {os.getpid()} is running it; nothing was"):
        RunFolder.create(tmp_path / "run", tmp_path, "x")
    made.close()
    assert folders.holder_of(tmp_path / "run") is None
    with pytest.raises(UsageError, match="holds a run already; nothing was touched"):
        RunFolder.create(tmp_path / "run", tmp_path, "x")


def test_a_folder_with_other_files_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, message in (("full", "not empty"), ("file", "not a folder")):
        with pytest.raises(UsageError, match=message):
            RunFolder.create(tmp_path / name, tmp_path, "x")
    assert (tmp_path / "full/letter.txt").read_text() == "mine"


def test_no_permission_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UsageError, match="cannot make the run folder"):
        RunFolder.create(None, tmp_path, "x")


def test_what_is_written_is_whole_and_leaves_no_part(tmp_path: Path) -> None:
    made = RunFolder.create(tmp_path / "run", tmp_path, "x")
    made.write("input.jsonl", b"{}\n")
    made.write_json("summary.json", {"a": 1})
    made.close()
    names = sorted(p.name for p in (tmp_path / "run").iterdir() if p.is_file())
    assert names == ["input.jsonl", "run.lock", "summary.json"]


def test_a_lock_is_not_inherited_by_programs(tmp_path: Path) -> None:
    made = RunFolder.create(tmp_path / "run", tmp_path, "x")
    assert fcntl.fcntl(made._lock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    made.close()


def test_differences_are_named_by_path() -> None:
    left = {"a": 1, "b": {"c": [1, 2]}, "d": None}
    right = {"a": 1, "b": {"c": [1, 3]}, "e": 5}
    assert differences(left, right) == ["b.c[1]: 2 -> 3", "e: None -> 5"]
    assert differences([1], [1, 2], "x") == ["x: [1] -> [1, 2]"]


def test_only_the_machine_and_the_versions_are_environment() -> None:
    then = {"versions": {"numpy": "1"}, "models": {"m": "/old"}, "seed": 1}
    now = {"versions": {"numpy": "2"}, "models": {"m": "/new"}, "seed": 2}
    assert environment_differences(then, now) == ["versions.numpy: 1 -> 2"]
