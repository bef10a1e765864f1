"""Two records beside each other: what the runs are, then where they part."""

from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.errors import UsageError
from lockstep.engine.record import Kind, encode
from lockstep.workers.comparison import Comparison, compare, diff
from lockstep.workers.recorded import Recorded


def entry(step: int, micro: int, *records: bytes) -> bytes:
    return encode(Kind.TAG, id=step, peer=micro) + b"".join(records)


START = entry(0, 0, encode(Kind.TURN, peer=0))
ONE = entry(1, 0, encode(Kind.OUTCOME, b"one", item=1))
TWO = entry(1, 0, encode(Kind.OUTCOME, b"two", item=1))
STOP = entry(2, 0, encode(Kind.STOP))


def record(*history: bytes, seed: int = 1, **more: Any) -> Recorded:
    groups = [{"name": "a", "module": more.pop("module", "aa")}]
    identity = {"fleet": {"seed": seed, "name": "f", "groups": groups}, "order": "strict", **more}
    return Recorded(Path("/run"), identity, {}, list(history), 0)


def of(left: Recorded, right: Recorded) -> Comparison:
    return compare(left, right)


def test_equal_records_are_equal() -> None:
    found = of(record(START, ONE, STOP), record(START, ONE, STOP))
    assert found.equal and found.exit_code == 0
    assert (found.as_json()["tag"], found.as_json()["left"]) == (None, None)


def test_what_the_runs_are_comes_with_the_seed_first_and_the_tag_is_still_shown() -> None:
    other = record(START, TWO, STOP, seed=2, module="bb", input="x")
    found = of(record(START, ONE, STOP), other)
    assert [line.split(":")[0] for line in found.identity] == [
        "fleet.seed",
        "input",
        "fleet.groups[0].module",
    ]
    assert found.difference is not None and found.difference.tag == "1.0"
    value = found.as_json()
    assert (value["equal"], value["tag"], value["exit_code"]) == (False, "1.0", 4)
    assert "one" in value["left"] and "two" in value["right"]


def test_other_runs_that_did_the_same_are_not_equal() -> None:
    found = of(record(START, STOP, seed=1), record(START, STOP, seed=2))
    assert not found.equal and found.difference is None and found.exit_code == 4
    value = found.as_json()
    assert value["tag"] is None and value["left"] != value["right"]
    assert value["left"] == f"digest {found.left.digest}"


def test_a_record_that_only_stops_is_told_from_one_that_ended_there() -> None:
    stopped = of(record(START, ONE, STOP), record(START))
    assert stopped.difference is not None
    assert stopped.difference.right == "the record stops here, before the end of the run"
    assert stopped.difference.left == "goes on at 1.0"
    turned = of(record(START), record(START, ONE, STOP))
    assert turned.difference is not None
    assert turned.difference.left == "the record stops here, before the end of the run"
    ended = of(record(START, ONE, STOP), record(START, STOP))
    assert ended.difference is not None and ended.difference.right == "2.0: STOP id 0"


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError, match=r"no such folder|no run in this folder"):
            diff(path, path)
