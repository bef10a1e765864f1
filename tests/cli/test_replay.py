"""`lockstep replay`: a run again from its journal, without the model."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.journal import JournalWriter
from lockstep.engine.journal import format as fmt
from lockstep.workers.folder import JOURNAL, SUMMARY
from lockstep.workers.identity import read_journal


@pytest.fixture
def bare(asked: Any, place: Any) -> Path:
    """A copy of the run whose model is gone."""
    path: Path = place.path / "run"
    shutil.copytree(asked[0].path / "runs" / "asks-1", path)
    return path


def _rewrite(run: Path, old: bytes, new: bytes) -> None:
    """The journal says something else, with checksums that are right."""
    journal = read_journal(run)
    assert any(old in frame.body for frame in journal.frames if frame.kind == fmt.HISTORY)
    with open(run / JOURNAL, "wb") as file:
        writer = JournalWriter(file, journal.header.run_id)
        for frame in journal.frames:
            body = frame.body.replace(old, new, 1) if frame.kind == fmt.HISTORY else frame.body
            writer.append(frame.kind, body)
    (run / SUMMARY).unlink()


def _without_model(place: Any, run: Path) -> None:
    journal = read_journal(run)
    model = b"genai-micro-fp32"
    with open(run / JOURNAL, "wb") as file:
        writer = JournalWriter(file, journal.header.run_id)
        for frame in journal.frames:
            gone = frame.kind == fmt.ENVIRONMENT
            body = frame.body.replace(model, b"x" * len(model)) if gone else frame.body
            writer.append(frame.kind, body)


def test_every_turn_comes_out_again_without_the_model(asked: Any, place: Any, bare: Path) -> None:
    _without_model(place, bare)
    before = sorted((path, path.stat().st_mtime_ns) for path in bare.rglob("*"))
    result = place.lockstep("replay", "run", "--json")
    assert result.code == 0, result.err
    first = asked[1].json
    same = ("digest", "digest_text", "steps", "turns", "tokens_out", "items_out")
    assert {key: result.json[key] for key in same} == {key: first[key] for key in same}
    assert result.json["run"] == str(bare)
    assert sorted((path, path.stat().st_mtime_ns) for path in bare.rglob("*")) == before


def test_one_agent_alone_can_be_replayed(asked: Any) -> None:
    place, first = asked
    result = place.lockstep("replay", "runs/asks-1", "--agent", "ask", "--json")
    assert (result.code, result.json["digest"]) == (0, first.json["digest"]), result.err
    wrong = place.lockstep("replay", "runs/asks-1", "--agent", "aks")
    assert wrong.code == 2 and "no agent 'aks'; did you mean 'ask'?" in wrong.err


def test_it_stops_before_the_tag_that_was_asked_for(asked: Any) -> None:
    place, first = asked
    result = place.lockstep("replay", "runs/asks-1", "--until", "3", "--json")
    assert result.code == 0, result.err
    assert result.json["steps"] == 2 < first.json["steps"]  # The first is step 1.
    assert result.json["digest"] != first.json["digest"]


def test_a_trace_has_each_turn_with_what_it_was_given_and_did(asked: Any) -> None:
    place, _ = asked
    result = place.lockstep("replay", "runs/asks-1", "--trace")
    assert result.code == 0, result.err
    assert "ITEM" in result.out and "INFER" in result.out and "EMIT" in result.out
    assert "ask" in result.out and "equal " in result.out
    with_json = place.lockstep("replay", "runs/asks-1", "--trace", "--json")
    assert with_json.out.count("\n") == 1 and "INFER" in with_json.err


def test_a_turn_that_comes_out_in_another_way_is_named(place: Any, bare: Path) -> None:
    _rewrite(bare, b'{"id": "b", "n": 2}', b'{"id": "b", "n": 5}')
    result = place.lockstep("replay", "run", "--json")
    assert result.code == 4, result.err
    assert result.json["exit_code"] == 4
    assert '"n": 2' in result.json["error"] or '"n": 5' in result.json["error"]


def test_a_run_with_failures_is_replayed_with_success(place: Any) -> None:
    args = ("run", "trap.toml", "--input", "items.jsonl", "--run-dir", "run")
    assert place.lockstep(*args).code == 3
    result = place.lockstep("replay", "run", "--json")
    assert result.code == 0, result.err
    assert result.json["items_failed"] == 1


def test_a_record_that_stops_is_replayed_as_far_as_it_goes(
    asked: Any, place: Any, cut: Any
) -> None:
    cut(asked[0].path / "runs" / "asks-1", place.path / "run", 6)
    result = place.lockstep("replay", "run", "--json")
    assert result.code == 0, result.err
    assert result.json["items_out"] == 0 and result.json["steps"] <= 2


def test_nothing_is_left_behind(asked: Any, tmp_path: Path) -> None:
    place, _ = asked
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env, place = place.env | {"TMPDIR": str(scratch)}, place
    result = type(place)(place.path, env).lockstep("replay", "runs/asks-1")
    assert result.code == 0, result.err
    assert list(scratch.iterdir()) == []
