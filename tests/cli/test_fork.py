"""`lockstep fork`: a new run that shares the past of another one."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lockstep.workers.folder import JOURNAL


@pytest.fixture(scope="module")
def forked(asked: Any) -> Any:
    """``fork`` beside the run that asks a model: another seed from step 3 on."""
    place, _ = asked
    args = ("fork", "runs/asks-1", "--at", "3", "--set", "seed=9", "--run-dir", "fork", "--json")
    return place, place.lockstep(*args)


def test_a_fork_shares_the_past_and_has_a_future_of_its_own(asked: Any, forked: Any) -> None:
    place, result = forked
    assert result.code == 0, result.err
    assert result.json["run"] == str(place.path / "fork")
    assert result.json["digest"] != asked[1].json["digest"]
    assert (result.json["items_in"], result.json["items_out"]) == (3, 3)
    found = place.lockstep("diff", "runs/asks-1", "fork", "--json")
    assert found.code == 4 and "fleet.seed: 3 -> 9" in found.json["identity"]
    step = int(found.json["tag"].removeprefix("step ").split(".")[0])
    assert step >= 3


def test_a_fork_does_not_copy_the_past(forked: Any) -> None:
    place, _ = forked
    whole = (place.path / "runs" / "asks-1" / JOURNAL).stat().st_size
    assert (place.path / "fork" / JOURNAL).stat().st_size < whole + 4096
    lines = place.lockstep("journal", "ls", "fork", "--json").json
    assert int(lines["segments"][0]["first"].removeprefix("step ").split(".")[0]) >= 3


def test_a_fork_is_verified_replayed_and_forked_as_any_run(forked: Any) -> None:
    place, first = forked
    verified = place.lockstep("verify", "fork", "--json")
    assert verified.code == 0, verified.err
    assert verified.json["digest"] == first.json["digest"]
    assert place.lockstep("replay", "fork").code == 0
    args = ("fork", "fork", "--at", "5", "--set", "seed=10", "--run-dir", "fork2", "--json")
    again = place.lockstep(*args)
    assert again.code == 0, again.err
    assert place.lockstep("verify", "fork2").code == 0


def test_a_fork_before_the_cut_of_its_parent_knows_nothing_of_it(asked: Any, forked: Any) -> None:
    place, _ = forked
    earlier = place.lockstep("fork", "fork", "--at", "2", "--run-dir", "earlier", "--json")
    assert earlier.code == 0, earlier.err
    assert earlier.json["digest_text"] == asked[1].json["digest_text"]
    for verb in ("replay", "verify"):
        again = place.lockstep(verb, "earlier", "--json")
        assert (again.code, again.json.get("digest")) == (0, earlier.json["digest"]), again.err


def test_a_fork_of_a_run_in_arrival_order_is_verified_with_what_it_kept(asked: Any) -> None:
    place, _ = asked
    first = place.lockstep(
        "run", "asks.toml", "--input", "items.jsonl", "--order", "arrival",
        "--run-dir", "arrival", "--json",
    )  # fmt: skip
    assert first.code == 0, first.err
    args = ("fork", "arrival", "--at", "3", "--set", "seed=9", "--run-dir", "later", "--json")
    forked = place.lockstep(*args)
    assert forked.code == 0, forked.err
    verified = place.lockstep("verify", "later", "--json")
    assert verified.code == 0, verified.err
    assert verified.json["digest"] == forked.json["digest"]


def test_a_fork_without_a_change_goes_the_same_way(asked: Any) -> None:
    place, first = asked
    args = ("fork", "runs/asks-1", "--at", "2", "--run-dir", "same", "--json")
    result = place.lockstep(*args)
    assert result.code == 0, result.err
    assert result.json["digest_text"] == first.json["digest_text"]
    assert place.lockstep("diff", "runs/asks-1", "same", "--json").json["tag"] is None


def test_a_fork_whose_parent_is_gone_says_where_it_was(forked: Any, place: Any) -> None:
    shutil.copytree(forked[0].path / "fork", place.path / "alone")
    parent = forked[0].path / "runs" / "asks-1"
    hidden = parent.with_name("hidden")
    parent.rename(hidden)
    try:
        result = place.lockstep("verify", "alone")
    finally:
        hidden.rename(parent)
    assert result.code == 2 and str(parent) in result.err


REFUSED = {
    "a step that never was": (("--at", "99"), "the run ended in step 7; there is no step 99"),
    "an unknown key": (("--at", "3", "--set", "sede=1"), "unknown key 'fleet.sede'; did you mean"),
    "a key that cannot change": (
        ("--at", "3", "--set", "agents.ask.delay=2"),
        "agents.ask.delay cannot change in the middle of a run: an agent keeps what it was",
    ),
    "a value out of range": (
        ("--at", "3", "--set", "schedule.lookahead=1001"),
        "lookahead is 1001, expected a whole number from 0 to 1000",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_forked_is_refused_and_nothing_is_made(asked: Any, case: str) -> None:
    place, _ = asked
    args, expected = REFUSED[case]
    before = place.names()
    result = place.lockstep("fork", "runs/asks-1", *args, "--run-dir", "never")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result.err
    assert expected in result.err and place.names() == before


def test_a_folder_that_holds_something_is_not_forked_into(asked: Any, place: Any) -> None:
    run = asked[0].path / "runs" / "asks-1"
    before = sorted(Path(run).rglob("*"))
    result = place.lockstep("fork", str(run), "--at", "3", "--run-dir", str(run))
    assert result.code == 2 and "nothing was touched" in result.err
    assert sorted(Path(run).rglob("*")) == before
