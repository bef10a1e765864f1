"""`lockstep verify`: equal, different, and what is told first."""

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.engine.journal import JournalWriter
from lockstep.engine.journal import format as fmt
from lockstep.workers.folder import JOURNAL, SUMMARY
from lockstep.workers.identity import read_journal


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
    """A copy of the run whose journal says something else, with checksums that are right."""
    run = done[0].path / "runs" / "small-1"
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


def test_another_environment_is_told_before_the_verdict(done: Any, place: Any) -> None:
    version = np.__version__.encode()
    _copied(done, place.path / "run", fmt.ENVIRONMENT, b'"numpy":"' + version,
            b'"numpy":"' + b"0" * len(version))  # fmt: skip
    result = place.lockstep("verify", "run")
    assert result.code == 0, result.err
    assert "lockstep: warning: since the run: versions.numpy: " in result.err
    assert "bits may differ" in result.err


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
