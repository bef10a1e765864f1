"""`lockstep verify`: equal, different, and what is told first."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.engine.journal import JournalWriter
from lockstep.engine.journal import format as fmt
from lockstep.workers.folder import JOURNAL, SUMMARY
from lockstep.workers.identity import read_journal

PROGRAM = [sys.executable, "-m", "lockstep.cli.main"]


def test_a_run_verifies_as_equal(done: Any) -> None:
    place, first = done
    result = place.lockstep("verify", "runs/small-1", "--json")
    assert result.code == 0, result.err
    assert result.json["equal"] is True
    same = ("digest", "digest_text", "run", "steps", "turns", "tokens_out", "state", "items_out")
    assert {k: result.json[k] for k in same} == {k: first.json[k] for k in same}
    assert "tag" not in result.json
    assert "equal " in place.lockstep("verify", "runs/small-1").out


def _copied(done: Any, to: Path, kind: int, old: bytes, new: bytes) -> None:
    _changed(done[0].path / "runs" / "small-1", to, kind, old, new)


def _changed(run: Path, to: Path, kind: int, old: bytes, new: bytes) -> None:
    """A copy of the run whose journal says something else, with checksums that are right."""
    shutil.copytree(run, to)
    journal = read_journal(run)
    with open(to / JOURNAL, "wb") as file:
        writer = JournalWriter(file, journal.header.run_id)
        for frame in journal.frames:
            body = frame.body.replace(old, new, 1) if frame.kind == kind else frame.body
            writer.append(frame.kind, body)
    assert read_journal(to).frames != journal.frames
    (to / SUMMARY).unlink()  # It names the digest of the journal that was closed.


def test_a_difference_is_shown_with_its_tag_and_both_sides(done: Any, place: Any) -> None:
    _copied(done, place.path / "run", fmt.HISTORY, b'"agent":"ask"', b'"agent":"asK"')
    result = place.lockstep("verify", "run", "--json")
    assert result.code == 4, result.err
    assert result.json["equal"] is False
    assert '"asK"' in result.json["left"] and '"ask"' in result.json["right"]
    assert result.json["tag"].count(".") == 1
    shown = place.lockstep("verify", "run")
    assert shown.code == 4
    assert shown.out.split()[0] == "different" and result.json["tag"] in shown.out


def test_another_journal_in_a_closed_run_is_refused(done: Any, place: Any) -> None:
    _copied(done, place.path / "run", fmt.HISTORY, b'"agent":"ask"', b'"agent":"asK"')
    shutil.copy(done[0].path / "runs" / "small-1" / SUMMARY, place.path / "run" / SUMMARY)
    result = place.lockstep("verify", "run")
    assert (result.code, result.out) == (4, "")
    assert "the run was closed with" in result.err


VERSION = np.__version__.encode()


@pytest.mark.parametrize(
    ("old", "new", "key", "leaves", "told"),
    [
        (b'"numpy":"' + VERSION, b'"numpy":"' + b"0" * len(VERSION), "versions.numpy", "bits",
         "expected: the same bits (another numpy: "),
        (b'"platform":"linux', b'"platform":"minix', "platform", "texts",
         "expected: the same texts at best (digest_text), not the same bits (another platform"),
    ],
)  # fmt: skip
def test_what_differs_and_what_that_leaves_is_told_before_anything_is_executed(
    done: Any, place: Any, old: bytes, new: bytes, key: str, leaves: str, told: str
) -> None:
    _copied(done, place.path / "run", fmt.ENVIRONMENT, old, new)
    result = place.lockstep("verify", "run", "--json")
    assert result.code == 0, result.err
    first, second = result.err.splitlines()[:2]
    assert first.startswith(f"lockstep: warning: since the run: {key}: ")
    assert second.startswith(f"lockstep: {told}")
    assert result.json["expected"] == leaves and result.json["notes"][0].startswith(f"{key}: ")


def test_where_nothing_differs_every_bit_is_expected(done: Any) -> None:
    result = done[0].lockstep("verify", "runs/small-1", "--json")
    assert "lockstep: expected: the same bits: machine type, provider and versions" in result.err
    assert (result.json["expected"], result.json["equal_text"]) == ("bits", True)


def test_the_records_in_front_of_a_difference_are_shown(done: Any, place: Any) -> None:
    _copied(done, place.path / "run", fmt.HISTORY, b'"n": 2', b'"n": 5')
    result = place.lockstep("verify", "run", "--json")
    assert result.code == 4, result.err
    assert result.json["before"] and result.json["entry"] >= 0
    shown = place.lockstep("verify", "run").out
    labels = [line.split()[0] for line in shown.splitlines() if line[0] != " "]
    assert labels[:4] == ["different", "before", "recorded", "again"]


def test_it_stops_at_the_first_difference(asked: Any, place: Any) -> None:
    whole = asked[0].path / "runs" / "asks-1"
    _changed(whole, place.path / "run", fmt.HISTORY, b'"n": 2', b'"n": 5')
    result = place.lockstep("verify", "run", "--json")
    assert (result.code, result.json["tag"], result.json["entry"]) == (4, "0.1", 1), result.err
    assert result.json["steps"] == 0 < asked[1].json["steps"]


def test_a_killed_verify_leaves_nothing_after_the_next_one(done: Any, tmp_path: Path) -> None:
    place, _ = done
    env = place.env | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen([*PROGRAM, "verify", "runs/small-1"], cwd=place.path, env=env,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    left: list[Path] = []
    while not left and process.poll() is None:
        left = [path for path in tmp_path.glob("lockstep-*/*") if path.is_dir()]
    process.kill()
    process.wait()
    assert left, "it ended before it made its folder"
    again = subprocess.run([*PROGRAM, "verify", "runs/small-1"], cwd=place.path, env=env,
                           capture_output=True, text=True, check=False)  # fmt: skip
    assert again.returncode == 0, again.stderr
    _until(lambda: _swept(place, env, tmp_path))


def _swept(place: Any, env: dict[str, str], scratch: Path) -> bool:
    """Whether nothing is left; the killed one's supervisor may live on for a moment."""
    if not list(scratch.glob("lockstep-*/*")):
        return True
    subprocess.run([*PROGRAM, "verify", "runs/small-1"], cwd=place.path, env=env,
                   capture_output=True, check=True)  # fmt: skip
    return False


def _until(reached: Callable[[], bool]) -> None:
    """Try until it is so; each try takes a process, so that these are minutes."""
    for _ in range(50):
        if reached():
            return
    raise AssertionError("it never came to be")


def test_a_damaged_journal_is_refused(done: Any, place: Any) -> None:
    shutil.copytree(done[0].path / "runs" / "small-1", place.path / "run")
    path = place.path / "run" / JOURNAL
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    result = place.lockstep("verify", "run")
    assert (result.code, result.out) == (2, "") and "checksum" in result.err
    assert path.read_bytes() == data


@pytest.mark.parametrize("name", ["default", "other"])
def test_a_model_may_have_moved(done: Any, name: str) -> None:
    place, _ = done
    moved = Path(__file__).parents[1] / "data" / "genai-micro-fp32"
    result = place.lockstep("verify", "runs/small-1", "--model", f"{name}={moved}", "--json")
    assert result.code == (0 if name == "default" else 2), result.err


def test_a_run_that_was_interrupted_is_equal_so_far(place: Any, live: Any) -> None:
    process = live()
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    result = place.lockstep("verify", "run", "--json")
    assert (result.code, result.json["equal"], result.json["whole"]) == (0, True, False)
    shown = place.lockstep("verify", "run").out
    assert shown.startswith("equal so far  the recorded run had not ended")
