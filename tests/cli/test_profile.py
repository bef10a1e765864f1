"""``lockstep profile``, the way a person uses it."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lockstep.cli import profile
from lockstep.workers import api
from lockstep.workers.launch import Interrupted
from lockstep.workers.profile.making import PICTURES

FILES = ("profile.json", "trace.json.gz")


def stat(folder: Path) -> dict[str, int]:
    """When each file below a folder was written last."""
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def profiled(asked: Any) -> Any:
    """The fleet of ``asked``, profiled in ``seen``."""
    place, _ = asked
    args = ("--input", "items.jsonl", "--run-dir", "seen", "--json", "--no-report")
    return place, place.lockstep("profile", "asks.toml", *args)


def test_a_profile_is_a_run_with_files_in_its_folder(asked: Any, profiled: Any) -> None:
    place, result = profiled
    assert (result.code, len(result.out.splitlines())) == (0, 1)
    assert result.json["digest"] == asked[1].json["digest"]
    assert not (place.path / "seen" / "report.html").exists()
    found = json.loads((place.path / "seen" / "profile.json").read_bytes())
    with gzip.open(place.path / "seen" / "trace.json.gz") as file:
        assert json.load(file)["otherData"]["fleet"] == found["fleet"] == "asks"
    brief = result.json["profile"]
    assert set(brief["files"]) == {"profile", "trace"} and brief["trace"]["slices"] > 0
    assert brief["latencies"]["ttft_ms"]["count"] == result.json["requests"]
    for text in ("where the time went", "supervisor", "TTFT", "decode", "ui.perfetto.dev"):
        assert text in result.err


def test_the_files_of_a_profiled_run_are_made_again(profiled: Any) -> None:
    place, _ = profiled
    run = place.path / "seen"
    before: dict[str, Any] = json.loads((run / "profile.json").read_bytes())
    for name in FILES:
        (run / name).unlink()
    kept = stat(run)
    result = place.lockstep("profile", "seen")
    assert result.code == 0 and "TTFT" in result.out
    assert (run / "report.html").exists() == (find_spec(PICTURES) is not None)
    again = json.loads((run / "profile.json").read_bytes())
    measured = ("limits", "machine")  # Of the machine as it is now.
    assert {k: v for k, v in again.items() if k not in measured} == {
        k: v for k, v in before.items() if k not in measured
    }
    assert {k: v for k, v in stat(run).items() if k in kept} == kept


def test_what_cannot_be_profiled_is_refused_in_one_line(profiled: Any) -> None:
    place, _ = profiled
    before = stat(place.path)
    for args, said in (
        (("asks.toml", "--run-dir", "seen"), "holds a run already; nothing was touched"),
        (("runs/asks-1",), "it was not profiled"),
        ((".",), ".: a folder, not a fleet file; did you mean fleet.toml?"),
        (("runs",), "runs: no run in this folder, but below it: runs/asks-1"),
        (("seen", "--seed", "3", "--nodes"), "--seed, --nodes: not for a run that was recorded"),
        (("none.toml",), "cannot read the fleet file"),
        (("asks.toml", "items.jsonl"), "did you mean --input items.jsonl?"),
    ):
        result = place.lockstep("profile", *args)
        (line,) = result.err.splitlines()
        assert (result.code, said in line, result.out) == (2, True, ""), result
    assert stat(place.path) == before


def test_ctrl_c_leaves_the_profile_of_what_was_until_then(place: Any) -> None:
    process = place.start(
        *("profile", "endless.toml", "--input", "items.jsonl", "--run-dir", "run", "--no-report")
    )
    for _ in range(200):  # Each look takes a process start: minutes in all.
        look = place.lockstep("top", "run", "--json")
        if look.code == 0 and "running" in [a["state"] for a in look.json["agents"]]:
            break
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "where the time went" in out and "lockstep resume" in out
    assert all((place.path / "run" / name).exists() for name in FILES)


def test_a_second_ctrl_c_says_how_to_go_on_and_how_the_profile_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, listen: Any, **__: Any) -> Any:
        listen("run", str(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "run", stopped)
    with pytest.raises(Interrupted, match=f"interrupted; go on with: lockstep resume {tmp_path}"):
        profile.command.main(["fleet.toml"], standalone_mode=False)
    assert f"no profile: `lockstep profile {tmp_path}` makes it" in capfd.readouterr().err


def test_files_that_cannot_be_written_are_told_in_one_line(profiled: Any, tmp_path: Path) -> None:
    place, _ = profiled
    run = tmp_path / "odd"
    shutil.copytree(place.path / "seen", run)
    (run / "trace.json.gz").unlink()
    (run / "trace.json.gz").mkdir()
    result = place.lockstep("profile", str(run))
    (line,) = result.err.splitlines()
    assert result.code == 2 and "cannot write the profile: Is a directory" in line
    assert not list(run.glob(".*.part"))
