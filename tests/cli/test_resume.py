"""`lockstep resume`: a run that stopped anywhere ends as one that nothing happened to."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from lockstep.workers.folder import JOURNAL, OUTPUT

SAME = ("digest", "digest_text", "steps", "turns", "requests", "tokens_in", "tokens_out",
        "items_out", "items_failed", "state", "exit_code")  # fmt: skip


def _files(run: Path) -> list[tuple[str, int, bytes]]:
    files = sorted(path for path in run.rglob("*") if path.is_file())
    return [(path.name, path.stat().st_mtime_ns, path.read_bytes()) for path in files]


@pytest.mark.parametrize("frames", [3, 6, 11, 14])
def test_a_run_that_was_cut_off_ends_as_the_undisturbed_one(
    asked: Any, place: Any, cut: Any, frames: int
) -> None:
    whole = asked[0].path / "runs" / "asks-1"
    run = cut(whole, place.path / "run", frames, tail=b"\x10\0\0\0torn")
    result = place.lockstep("resume", "run", "--json")
    assert result.code == 0, result.err
    assert {key: result.json[key] for key in SAME} == {key: asked[1].json[key] for key in SAME}
    assert result.json["restarts"] == 0 and result.json["run"] == str(run)
    assert (run / OUTPUT).read_bytes() == (whole / OUTPUT).read_bytes()
    assert "torn" in result.err or "cut" in result.err
    assert place.lockstep("journal", "check", "run").code == 0
    assert place.lockstep("diff", str(whole), "run").code == 0
    assert place.lockstep("verify", "run").code == 0


def test_a_copy_of_the_output_can_be_asked_for_again(asked: Any, place: Any, cut: Any) -> None:
    whole = asked[0].path / "runs" / "asks-1"
    cut(whole, place.path / "run", 11)
    copy = place.path / "copy.jsonl"
    assert place.lockstep("resume", "run", "--output", "copy.jsonl").code == 0
    assert copy.read_bytes() == (whole / OUTPUT).read_bytes()
    copy.unlink()
    assert place.lockstep("resume", "run", "--output", "copy.jsonl").code == 0  # It has ended.
    assert copy.read_bytes() == (whole / OUTPUT).read_bytes()
    refused = place.lockstep("resume", "run", "--output", "run/input.jsonl")
    assert refused.code == 2 and "would replace what the run is made from" in refused.err


def test_a_run_that_has_ended_is_not_touched(asked: Any) -> None:
    place, first = asked
    run = place.path / "runs" / "asks-1"
    before = _files(run)
    result = place.lockstep("resume", "runs/asks-1", "--json")
    assert result.code == 0, result.err
    assert "the run has come to its end; nothing was touched" in result.err
    assert result.json["digest"] == first.json["digest"] and result.json["restarts"] == 0
    assert result.json.keys() == first.json.keys()
    assert _files(run) == before
    wrong = place.lockstep("resume", "runs/asks-1", "--model", "defualt=/nowhere")
    assert wrong.code == 2 and "model 'defualt' is not in the fleet, only: default" in wrong.err


def test_a_run_that_ended_with_failures_keeps_its_exit_code(place: Any) -> None:
    args = ("run", "trap.toml", "--input", "items.jsonl", "--run-dir", "run")
    assert place.lockstep(*args).code == 3
    before = _files(place.path / "run")
    assert place.lockstep("resume", "run").code == 3
    assert _files(place.path / "run") == before


def test_a_damaged_journal_is_refused_and_nothing_is_changed(
    asked: Any, place: Any, cut: Any
) -> None:
    run = cut(asked[0].path / "runs" / "asks-1", place.path / "run", 11)
    path = run / JOURNAL
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    before = _files(run)
    result = place.lockstep("resume", "run")
    assert (result.code, result.out) == (2, "") and "nothing was cut" in result.err
    assert _files(run) == before


def test_a_living_run_is_not_resumed_and_its_holder_is_named(place: Any, live: Any) -> None:
    live()
    holder = place.lockstep("top", "run", "--json").json["supervisor"]["pid"]
    for verb in (("resume",), ("replay",), ("fork", "--at", "1")):
        result = place.lockstep(*verb, "run")
        assert result.code == 2 and f"process {holder} is still running it" in result.err


def test_an_interrupted_run_says_how_to_go_on_and_does(place: Any, live: Any) -> None:
    process = live("--json")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert f"lockstep resume {place.path / 'run'}" in err and '"resumable": true' in out
    again = place.start("resume", "run")
    while place.lockstep("top", "run", "--json").json["state"] != "running":
        assert again.poll() is None, again.communicate()
    again.send_signal(signal.SIGTERM)
    _, err = again.communicate()
    assert again.returncode == 130, err
    assert "Traceback" not in err


def test_a_killed_supervisor_says_how_to_go_on(place: Any, live: Any) -> None:
    process = live()
    os.kill(place.lockstep("top", "run", "--json").json["supervisor"]["pid"], signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 3
    assert err.rstrip().endswith(f"go on with: lockstep resume {place.path / 'run'}")


def test_an_end_that_would_come_again_is_not_called_resumable(place: Any) -> None:
    fleet = (place.path / "trap.toml").read_text().replace('"trap"', '"trap"\nturns_max = 4')
    place.write("few.toml", fleet.replace("{", "{{").replace("}", "}}"))
    result = place.lockstep("run", "few.toml", "--input", "items.jsonl", "--json")
    assert (result.code, result.json["state"], result.json["resumable"]) == (3, "stopped", False)
    assert "lockstep resume" not in result.err and "resume cannot mend it" in result.err
    assert place.lockstep("resume", result.json["run"]).code == 3


def test_a_moved_model_can_be_named(asked: Any, place: Any, cut: Any) -> None:
    cut(asked[0].path / "runs" / "asks-1", place.path / "run", 6)
    model = place.path / "moved"
    shutil.copytree(Path(__file__).parents[1] / "data" / "genai-micro-fp32", model)
    result = place.lockstep("resume", "run", "--model", f"default={model}", "--json")
    assert result.code == 0, result.err
    assert result.json["digest"] == asked[1].json["digest"]
