"""`lockstep journal`: looking at a run without touching it."""

import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from lockstep.workers.folder import JOURNAL, SUMMARY


def _snapshot(run: Path) -> list[tuple[str, int, bytes]]:
    """Everything in a folder: names, times, bytes."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    return [(str(path), path.stat().st_mtime_ns, path.read_bytes()) for path in files]


@pytest.fixture
def copy(done: Any, place: Any) -> Path:
    """A copy of the finished run, ``run`` in the place."""
    path: Path = place.path / "run"
    shutil.copytree(done[0].path / "runs" / "small-1", path)
    return path


def test_no_verb_changes_anything_in_the_folder(done: Any) -> None:
    place, _ = done
    before = _snapshot(place.path / "runs" / "small-1")
    for verb in ("ls", "check", "show", "export"):
        result = place.lockstep("journal", verb, "runs/small-1")
        assert (result.code, result.err) == (0, ""), verb
    assert _snapshot(place.path / "runs" / "small-1") == before


def test_ls_says_what_is_in_each_segment(done: Any) -> None:
    place, first = done
    found = place.lockstep("journal", "ls", "runs/small-1", "--json").json
    (segment,) = found["segments"]
    data = (place.path / "runs/small-1" / JOURNAL).read_bytes()
    assert (segment["file"], segment["bytes"]) == (Path(JOURNAL).name, len(data))
    assert segment["first"] == "0.0" and segment["last"] == found["last"]
    assert found["digest"] == first.json["digest"]
    assert found["records"]["TURN"] == first.json["turns"]
    assert (found["ended"], found["torn_bytes"], found["running"]) == (True, 0, None)
    shown = place.lockstep("journal", "ls", "runs/small-1").out
    assert segment["file"] in shown and found["run_id"] in shown


def test_a_whole_journal_is_said_to_be_whole(done: Any) -> None:
    place, _ = done
    result = place.lockstep("journal", "check", "runs/small-1", "--json")
    assert (result.code, result.json["state"], result.json["exit_code"]) == (0, "whole", 0)
    shown = place.lockstep("journal", "check", "runs/small-1").out
    assert shown.startswith("whole  the run has come to its end")


def test_a_torn_journal_is_told_from_a_damaged_one(place: Any, copy: Path) -> None:
    path = copy / JOURNAL
    whole = path.read_bytes()
    (copy / SUMMARY).unlink()  # It was written when the run was closed: a crash leaves none.
    path.write_bytes(whole[:-5])
    torn = place.lockstep("journal", "check", "run", "--json")
    assert (torn.code, torn.json["state"]) == (3, "torn")
    assert torn.json["torn_bytes"] > 0 and not torn.json["ended"]
    assert "resume cuts them" in torn.json["text"]
    assert path.read_bytes() == whole[:-5]
    listed = place.lockstep("journal", "ls", "run")
    assert listed.code == 0 and "\ntorn " in listed.out
    path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    damaged = place.lockstep("journal", "check", "run", "--json")
    assert (damaged.code, damaged.json["state"]) == (2, "damaged")
    assert "frame 0 at byte 64" in damaged.json["text"]
    for verb in ("ls", "show", "export"):
        result = place.lockstep("journal", verb, "run")
        assert result.code == 2 and "This is damage" in result.err


def test_frames_that_are_missing_in_a_closed_run_are_damage(place: Any, copy: Path) -> None:
    path = copy / JOURNAL
    path.write_bytes(path.read_bytes()[:-5])
    result = place.lockstep("journal", "check", "run", "--json")
    assert (result.code, result.json["state"]) == (2, "damaged")
    assert "the run was closed with" in result.json["text"]


def test_another_versions_journal_is_no_damage(place: Any, copy: Path) -> None:
    path = copy / JOURNAL
    data = bytearray(path.read_bytes())
    data[8] = 99
    path.write_bytes(_with_checksum(data))
    result = place.lockstep("journal", "check", "run")
    assert (result.code, result.out) == (2, "") and "format 99" in result.err


def _with_checksum(data: bytearray) -> bytes:
    data[60:64] = zlib.crc32(data[:60]).to_bytes(4, "little")
    return bytes(data)


def test_export_has_every_record_as_a_line(done: Any) -> None:
    place, first = done
    result = place.lockstep("journal", "export", "runs/small-1")
    lines = [json.loads(line) for line in result.out.splitlines()]
    counted = place.lockstep("journal", "ls", "runs/small-1", "--json").json["records"]
    kinds = [line["kind"] for line in lines]
    assert {kind: kinds.count(kind) for kind in kinds} == counted
    assert lines[0]["identity"]["fleet"]["name"] == "small"
    emitted = [r for line in lines if line["kind"] == "EFFECT" for r in line["records"]]
    assert [r["payload"] for r in emitted] == [
        {"id": "a", "n": 1},
        {"id": "b", "n": 2},
        {"id": "c", "n": 3},
    ]
    assert sum(line["kind"] == "TURN" for line in lines) == first.json["turns"]
    with_json = place.lockstep("journal", "export", "runs/small-1", "--json")
    assert with_json.json["records"] == len(lines)


def test_show_selects_by_tag_agent_and_kind(done: Any) -> None:
    place, _ = done

    def shown(*args: str) -> list[list[str]]:
        result = place.lockstep("journal", "show", "runs/small-1", *args)
        assert result.code == 0, result.err
        return [line.split() for line in result.out.splitlines()]

    heads = [line[:2] for line in shown("--from", "0.1", "--to", "0.2") if line[0][0] == "0"]
    assert {tag for tag, _ in heads} == {"0.1", "0.2"}
    step = {line[0] for line in shown("--to", "0", "--kind", "TAG")}
    assert {"0.0", "0.1", "0.2"} <= step
    effects = shown("--agent", "echo", "--kind", "effect")
    heads = [line[1:4] for line in effects if line[0].startswith("0.")]
    assert heads == [["EFFECT", "agent", "echo"]] * 3
    emits = shown("--kind", "EMIT")
    assert [line[0] for line in emits].count("EMIT") == 3
    assert not [line for line in emits if line[0] == "TURN"]
    wrong = place.lockstep("journal", "show", "runs/small-1", "--agent", "ecoh")
    assert wrong.code == 2 and "no agent 'ecoh'; did you mean 'echo'?" in wrong.err
    wrong = place.lockstep("journal", "show", "runs/small-1", "--from", "3", "--to", "2")
    assert wrong.code == 2 and "--from 3 is behind --to 2" in wrong.err


def test_what_agents_wrote_cannot_reach_the_terminal(place: Any) -> None:
    text = json.dumps({"id": "x", "n": "\x1b[31mred\x07"}, ensure_ascii=True) + "\n"
    (place.path / "items.jsonl").write_text(text)
    place.write("echo.toml", '[agents.e]\nmodule = "{guests}/echo.wasm"\ninput = "broadcast"\n')
    run = place.lockstep("run", "echo.toml", "--input", "items.jsonl", "--run-dir", "run")
    assert run.code == 0, run.err
    result = place.lockstep("journal", "show", "run")
    assert "red" in result.out and "\x1b" not in result.out and "\x07" not in result.out


def test_a_living_run_can_be_looked_at(place: Any, live: Any) -> None:
    live()
    holder = place.lockstep("top", "run", "--json").json["supervisor"]["pid"]
    found = place.lockstep("journal", "check", "run", "--json")
    assert (found.code, found.json["state"], found.json["running"]) == (0, "whole", holder)
    assert f"process {holder} is running it" in found.json["text"]
    assert place.lockstep("journal", "show", "run", "--agent", "spin").code == 0


def test_a_reader_that_leaves_early_is_no_error(done: Any) -> None:
    place, _ = done
    script = f'"{sys.executable}" -m lockstep.cli.main journal export runs/small-1 | head -n 1'
    result = subprocess.run(["/bin/sh", "-c", script], cwd=place.path, env=place.env,
                            capture_output=True, text=True, check=False)  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "") and result.stdout.count("\n") == 1


def test_printing_without_end_ends_when_nobody_reads() -> None:
    code = (
        "from itertools import repeat; from lockstep.cli import journal, screen; "
        "screen.open_streams(); journal._print(repeat('a record'))"
    )
    script = f'"{sys.executable}" -c "{code}" | head -n 1'
    result = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("a record\n", "")
