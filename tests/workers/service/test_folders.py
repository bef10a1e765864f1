"""What a service finds on its disk: state folders, histories of runs, answers in output files."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from array import array
from pathlib import Path

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers.folder import LOCK
from lockstep.workers.service import history, state
from lockstep.workers.service.answers import Answers
from lockstep.workers.service.history import Item
from lockstep.workers.service.state import Keep, StateFolder, make_private, surplus
from lockstep.workers.service.states import BACKOFF, ENDED, STOPPED, STUCK, verdict


def lines_of(count: int) -> list[list[bytes]]:
    """Lines of items, in item order: none, one or several each."""
    return [
        [json.dumps({"id": f"q{item}", "n": n}).encode() for n in range(item % 3)]
        for item in range(1, count + 1)
    ]


def write(run: Path, lines: list[list[bytes]]) -> bytes:
    data = b"".join(line + b"\n" for item in lines for line in item)
    (run / "output.jsonl").write_bytes(data)
    return data


@pytest.mark.parametrize("seed", range(5))
def test_answers_are_found_in_whatever_order_items_end(tmp_path: Path, seed: int) -> None:
    lines = lines_of(30)
    write(tmp_path, lines)
    order = list(range(1, 31))
    random.Random(seed).shuffle(order)
    answers = Answers(tmp_path)
    for n, item in enumerate(order):
        assert answers.get(item) is None
        answers.add(item, b",".join(lines[item - 1]))
        answers.add(item, b"again")  # It is told once more after a crash.
        for done in order[: n + 1]:
            assert answers.get(done) == b",".join(lines[done - 1])


def test_the_output_file_says_which_items_are_answered_wherever_it_was_torn(tmp_path: Path) -> None:
    lines = lines_of(12)
    data = write(tmp_path, lines)
    items = [Item(json.dumps(f"q{n}"), b"", n, "1.0", True) for n in range(1, 13)]
    for size in range(len(data) + 1):
        (tmp_path / "output.jsonl").write_bytes(data[:size])
        ends = history._ends(tmp_path, items, whole=False)
        answers = Answers(tmp_path, array("Q", ends))
        shown = [line for item in lines for line in item][: data[:size].count(b"\n")]
        if shown:  # Whoever is the last may have more to say.
            assert len(ends) == int(json.loads(shown[-1])["id"][1:])
        for number in range(1, len(ends)):
            assert answers.get(number) == b",".join(lines[number - 1])
    assert len(history._ends(tmp_path, items, whole=True)) == 13
    (tmp_path / "output.jsonl").write_bytes(b"nonsense\n")
    with pytest.raises(UsageError, match=r"output\.jsonl: cannot be read"):
        history._ends(tmp_path, items, whole=False)


def test_runs_are_kept_as_long_as_every_bound_allows(tmp_path: Path) -> None:
    runs = [tmp_path / f"vote-{n}" for n in range(1, 6)]
    for age_days, run in enumerate(reversed(runs)):
        run.mkdir()
        (run / "summary.json").write_bytes(b"x" * 1000)
        at = (run / "summary.json").stat().st_mtime - age_days * state.DAY_S
        os.utime(run / "summary.json", (at, at))
    assert surplus(runs, Keep(runs=10)) == []
    assert surplus(runs, Keep(runs=2)) == [runs[2], runs[1], runs[0]]
    assert surplus(runs, Keep(runs=0)) == runs[::-1]
    assert surplus(runs, Keep(runs=10, days=3)) == [runs[1], runs[0]]
    assert surplus(runs, Keep(runs=10, bytes=3500)) == [runs[1], runs[0]]
    gone = tmp_path / "vote-6"  # A person removed it.
    assert surplus([gone], Keep(runs=10, days=3)) == [gone]


def test_a_state_folder_is_private_and_holds_its_runs(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "new")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.next_run("vote").name == "vote-1" and folder.current() == ""
    for name in ("vote-2", "other-10", f"{state.REMOVING}vote-1"):
        (folder.runs / name).mkdir()
    journal = folder.runs / "vote-2" / "journal"
    journal.mkdir()
    (journal / "00000000.journal").write_bytes(b"x" * 100)
    assert folder.found(lambda _: None) == [folder.runs / "vote-2"]
    assert [path.name for path in folder.runs.iterdir()] == ["vote-2"]  # The others never began.
    assert folder.next_run("other").name == "other-11"
    folder.make_current(folder.runs / "vote-2")
    folder.make_current(folder.runs / "vote-2")
    assert folder.current() == "vote-2" and (folder.path / "current" / "journal").is_dir()
    with pytest.raises(UsageError, match=f"process {os.getpid()} is this service already"):
        StateFolder(folder.path)
    folder.remove(folder.runs / "vote-2")
    assert not any(folder.runs.iterdir())
    folder.close()


def test_the_number_of_a_run_is_never_given_again(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "new")
    first = folder.next_run("vote")
    first.mkdir()
    folder.make_current(first)
    folder.remove(first)
    assert folder.next_run("vote").name == "vote-2"  # Nothing was made of it: it was refused.
    (folder.runs / "other-7").mkdir()
    shutil.rmtree(folder.next_run("vote").parent)  # A person's hands.
    assert folder.next_run("vote").name == "vote-9"
    folder.close()
    again = StateFolder(folder.path)
    assert again.next_run("vote").name == "vote-10"
    again.close()
    (folder.path / "last-run").unlink()  # As an older version left it: the link says more.
    (folder.path / "current").unlink()
    (folder.path / "current").symlink_to("runs/vote-20")
    again = StateFolder(folder.path)
    assert again.next_run("vote").name == "vote-21"
    again.close()
    (folder.path / "last-run").write_text("many")
    with pytest.raises(UsageError, match="last-run: is not the number of a run; nothing was"):
        StateFolder(folder.path)


def test_a_number_outlives_its_run_or_the_run_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = StateFolder(tmp_path / "new")
    with monkeypatch.context() as patch:
        patch.setattr(StateFolder, "_write", full)
        run = folder.next_run("vote")
        run.mkdir()
        with pytest.raises(OSError, match="No space"):
            folder.remove(run)
        assert run.is_dir()
    folder.remove(run)
    folder.close()
    again = StateFolder(folder.path)
    assert again.next_run("vote").name == "vote-2"
    again.close()


@pytest.mark.parametrize("kept", ["journal/00000001.journal", "output.jsonl"])
def test_a_run_of_which_anything_is_left_is_not_removed(tmp_path: Path, kept: str) -> None:
    folder = StateFolder(tmp_path / "new")
    run = folder.runs / "vote-1"
    (run / "journal").mkdir(parents=True)
    (run / kept).write_bytes(b"x")
    assert folder.found(lambda _: None) == [run]  # Its first segment is gone: that is damage.
    (run / kept).unlink()
    (run / "journal" / "reserve").write_bytes(b"x" * 100)
    (run / "journal" / "00000000.journal").write_bytes(b"x")  # Killed in the middle of its start.
    assert folder.found(lambda _: None) == [] and not run.exists()
    folder.close()


def test_a_killed_start_leaves_a_folder_that_the_next_one_takes(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / state.LOCK).touch()  # The first thing that is made.
    StateFolder(tmp_path / "new").close()


def test_the_copy_of_a_state_does_not_lead_to_the_service_that_it_was_copied_from(
    tmp_path: Path,
) -> None:
    folder = StateFolder(tmp_path / "new")
    folder.write({"socket": "/run/lockstep/control.sock"})
    assert state.info_of(folder.path)["socket"] == "/run/lockstep/control.sock"
    shutil.copytree(folder.path, tmp_path / "copy")
    with pytest.raises(UsageError, match="is a copy of a service's state"):
        state.info_of(tmp_path / "copy")
    folder.path.rename(tmp_path / "moved")
    assert state.info_of(tmp_path / "moved")["socket"]
    assert not folder.held
    folder.path.mkdir()
    (folder.path / state.LOCK).touch()  # Another service has taken the place.
    assert not folder.held
    folder.close()


def test_lines_of_items_that_the_record_does_not_have_are_left_for_the_run(tmp_path: Path) -> None:
    lines = lines_of(12)
    write(tmp_path, lines)
    items = [Item(json.dumps(f"q{n}"), b"", n, "1.0", True) for n in range(1, 8)]
    ends = history._ends(tmp_path, items, whole=False)
    answers = Answers(tmp_path, array("Q", ends))
    # Of item 7 there may be more: it is the last that the record knows of.
    assert len(ends) == 7
    for number in range(1, 7):
        assert answers.get(number) == b",".join(lines[number - 1])


def test_a_run_that_somebody_does_not_let_go_of_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(state, "HELD_S_MAX", 0.1)
    folder = StateFolder(tmp_path / "new")
    run = folder.runs / "vote-1"
    run.mkdir()
    with open(run / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        waited: list[Path] = []
        with pytest.raises(UsageError, match="process 4711 is still running it"):
            folder.found(waited.append)
    assert waited and set(waited) == {run}
    folder.close()


def test_what_is_no_state_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("!")
    with pytest.raises(UsageError, match="not the state of a service"):
        StateFolder(tmp_path)
    with pytest.raises(UsageError, match="no service has this as its state"):
        state.info_of(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_socket_lies_where_nobody_else_comes(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "sockets"
    for _ in range(2):  # It is made, and then it is there.
        make_private(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o750)
    with pytest.raises(UsageError, match=r"--socket-dir .* mode 0750, expected a folder of"):
        make_private(folder)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--socket-dir .*/file: cannot be made: File exists"):
        make_private(tmp_path / "file")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("stopping", [True, False])
@pytest.mark.parametrize("code", [0, 2, 3, 4, 70, 130])
def test_every_end_of_a_supervisor_has_its_verdict(whole: bool, stopping: bool, code: int) -> None:
    found = verdict(whole, stopping, code)
    if whole:
        assert found == ENDED
    elif stopping:
        assert found == STOPPED
    else:
        assert found == (BACKOFF if code in (3, 130) else STUCK)
