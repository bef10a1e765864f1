"""Run folders and what is written into them."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from lockstep.engine import actions
from lockstep.engine.digest import Digest, identity_record
from lockstep.engine.errors import JournalError, UsageError
from lockstep.engine.history import Entry
from lockstep.engine.journal import JournalReader
from lockstep.engine.journal import format as journal_format
from lockstep.engine.record import Kind, encode
from lockstep.workers import folder as folders
from lockstep.workers import journal_file
from lockstep.workers.folder import RunFolder
from lockstep.workers.identity import differences, environment_differences
from lockstep.workers.journal_file import JournalFile
from lockstep.workers.ledger import Ledger


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


@pytest.mark.parametrize("level", journal_file.LEVELS)
def test_a_ledger_reveals_output_after_its_entries(tmp_path: Path, level: str) -> None:
    folder = RunFolder.create(tmp_path / "run", tmp_path, "x")
    ledger = Ledger(folder, level, {"a": 1}, {"b": 2})
    entry = Entry(encode(Kind.TAG), b"said")
    ledger.append(entry)
    ledger.output(b'{"id":1}')
    output = tmp_path / "run" / folders.OUTPUT
    assert output.read_bytes() == b""
    ledger.reveal()
    assert output.read_bytes() == b'{"id":1}\n'
    ledger.close()
    folder.close()
    journal = JournalReader((tmp_path / "run" / folders.JOURNAL).read_bytes(), "j")
    assert list(journal.bodies(journal_format.HISTORY)) == [entry.body]
    again = Digest(identity_record({"a": 1}))
    again.add(entry)
    assert (again.digest, again.digest_text) == (ledger.digest.digest, ledger.digest.digest_text)


def test_control_characters_of_an_agent_do_not_reach_the_log_file(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", tmp_path, "x")
    ledger = Ledger(folder, "memory", {}, {})
    ledger.log("a", actions.Log(0, 1, 1, (3, 4), b"red \x1b[31m\n\xff"))
    ledger.close()
    folder.close()
    text = (tmp_path / "run/logs/a.log").read_text()
    assert text == "3.4 info stdout: red \\x1b[31m\\x0a\N{REPLACEMENT CHARACTER}\n"


def test_a_full_disk_stops_with_the_place_and_what_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = JournalFile(tmp_path / "j", "async")
    file.write(b"12345678")
    file.reveal()

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal_file.os, "write", full)
    file.write(b"more")
    with pytest.raises(JournalError, match=r"cannot write: No space left.*8 bytes\) stands"):
        file.reveal()
    monkeypatch.undo()
    file.close()
    assert (tmp_path / "j").read_bytes() == b"12345678"


@pytest.mark.parametrize("level", ["async", "sync"])
def test_what_nobody_sees_yet_is_written_a_little_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    now = 100.0
    monkeypatch.setattr(journal_file.time, "monotonic", lambda: now)
    file = JournalFile(tmp_path / "j", level)
    file.write(b"a")
    file.reveal(visible=True)
    file.write(b"b")
    assert file.behind
    file.reveal(visible=False)
    assert (tmp_path / "j").read_bytes() == b"a"
    now += 2 * journal_file.DELAY_S
    file.reveal(visible=False)
    assert (tmp_path / "j").read_bytes() == b"ab"
    assert not file.behind
    file.write(b"c")
    file.reveal(visible=True)
    assert (tmp_path / "j").read_bytes() == b"abc"
    file.close()


def test_a_short_write_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(journal_file.os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    file = JournalFile(tmp_path / "j", "sync")
    file.write(b"abcdefgh")
    file.reveal()
    file.close()
    assert (tmp_path / "j").read_bytes() == b"abcdefgh"


def test_a_failed_sync_is_an_error_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = JournalFile(tmp_path / "j", "sync")
    monkeypatch.setattr(journal_file.os, "fdatasync", broken)
    file.write(b"x")
    with pytest.raises(JournalError, match="cannot sync: Input/output error"):
        file.reveal()
    file.close()
    assert len(calls) == 1


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
