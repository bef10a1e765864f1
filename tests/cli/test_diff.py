"""`lockstep diff`: where two runs part, and why."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lockstep.workers.folder import JOURNAL


@pytest.fixture(scope="module")
def pair(done: Any) -> Any:
    """The finished run, and ``other`` with another seed beside it."""
    place, _ = done
    args = ("run", "fleet.toml", "--input", "items.jsonl", "--seed", "9", "--run-dir", "other")
    assert place.lockstep(*args).code == 0
    return place


def test_a_run_is_equal_to_itself(done: Any) -> None:
    place, first = done
    result = place.lockstep("diff", "runs/small-1", "runs/small-1", "--json")
    assert result.code == 0, result.err
    nothing = {"equal": True, "tag": None, "left": None, "right": None, "identity": []}
    assert {key: result.json[key] for key in nothing} == nothing
    assert result.json["digests"] == [first.json["digest"]] * 2
    assert place.lockstep("diff", "runs/small-1", "runs/small-1").out.startswith("equal")


def test_another_seed_is_named_first(pair: Any) -> None:
    result = pair.lockstep("diff", "runs/small-1", "other", "--json")
    assert (result.code, result.json["equal"]) == (4, False)
    assert result.json["identity"][0] == "fleet.seed: 0 -> 9"
    shown = pair.lockstep("diff", "runs/small-1", "other")
    assert shown.code == 4 and shown.out.split(None, 3)[:3] == ["other", "runs", "fleet.seed:"]


def test_another_input_differs_at_the_tag_where_it_is_first_seen(pair: Any) -> None:
    (pair.path / "more.jsonl").write_text('{"id": "a", "n": 1}\n{"id": "b", "n": 7}\n')
    args = ("run", "fleet.toml", "--input", "more.jsonl", "--run-dir", "more")
    assert pair.lockstep(*args).code == 0
    result = pair.lockstep("diff", "runs/small-1", "more", "--json")
    assert result.code == 4
    assert [line.split(":")[0] for line in result.json["identity"]] == ["input"]
    # Two items are admitted, not three.
    assert result.json["tag"] == "0.0" and "ADMIT" in result.json["left"] + result.json["right"]
    shown = pair.lockstep("diff", "runs/small-1", "more").out
    assert "different   at 0.0, entry 0" in shown and "left has" in shown and "right has" in shown


def test_a_record_that_only_stops_says_so(done: Any, place: Any) -> None:
    run = done[0].path / "runs" / "small-1"
    shutil.copytree(run, place.path / "cut")
    path: Path = place.path / "cut" / JOURNAL
    path.write_bytes(path.read_bytes()[:-5])
    result = place.lockstep("diff", str(run), "cut", "--json")
    assert (result.code, result.json["whole"]) == (4, [True, False])
    assert result.json["right"] == "the record stops here, before the end of the run"
    assert result.json["left"].startswith("goes on at ")


def test_a_damaged_journal_is_refused_by_name(done: Any, place: Any) -> None:
    run = done[0].path / "runs" / "small-1"
    shutil.copytree(run, place.path / "bad")
    path = place.path / "bad" / JOURNAL
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    result = place.lockstep("diff", str(run), "bad")
    assert (result.code, result.out) == (2, "") and "bad/journal/" in result.err
