"""`lockstep run`: what a finished run shows, to people and to programs."""

import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from typing import Any

import pytest

FIELDS: dict[str, type] = {
    "run": str,
    "digest": str,
    "digest_text": str,
    "steps": int,
    "turns": int,
    "messages": int,
    "requests": int,
    "tokens_in": int,
    "tokens_out": int,
    "wall_s": float,
    "provider": str,
    "regenerative": bool,
    "items_in": int,
    "items_out": int,
    "items_failed": int,
    "agents_failed": list,
    "state": str,
}


def test_json_has_every_field_on_the_last_line(done: Any) -> None:
    place, result = done
    assert result.code == 0, result.err
    assert {name: type(result.json[name]) for name in FIELDS} == FIELDS
    assert len(result.out.splitlines()) == 1
    assert result.json["state"] == "finished"
    assert (result.json["items_in"], result.json["items_out"]) == (3, 3)
    assert result.json["run"] == str(place.path / "runs" / "small-1")
    assert re.fullmatch("[0-9a-f]{64}", result.json["digest"])


def test_the_run_folder_is_whole_and_the_output_is_copied(done: Any) -> None:
    place, result = done
    run = place.path / "runs" / "small-1"
    names = {entry.name for entry in run.iterdir()}
    assert {"manifest.json", "fleet.toml", "input.jsonl", "modules", "journal", "output.jsonl",
            "logs"} <= names  # fmt: skip
    assert (place.path / "copy.jsonl").read_bytes() == (run / "output.jsonl").read_bytes()
    ids = [json.loads(line)["id"] for line in (run / "output.jsonl").read_text().splitlines()]
    assert ids == ["a", "b", "c"]
    assert result.err.count("lockstep: run folder:") == 1


def test_people_get_a_summary_without_colours_in_a_pipe(place: Any) -> None:
    result = place.lockstep("run", "fleet.toml", "--input", "items.jsonl", "--run-dir", "mine")
    assert result.code == 0, result.err
    labels = [line.split()[0] for line in result.out.splitlines()]
    assert labels == ["run", "state", "seed", "items", "tokens", "work", "provider", "digest",
                      "digest_text", "output", "next"]  # fmt: skip
    assert "3 in, 3 out, 0 failed" in result.out and "tokens/s" in result.out
    assert "\x1b" not in result.out + result.err and "\r" not in result.err


def test_another_seed_gives_another_digest_and_a_new_folder(place: Any) -> None:
    args = ("run", "trap.toml", "--input", "items.jsonl", "--json", "--seed")
    first, second = place.lockstep(*args, "1"), place.lockstep(*args, "2")
    assert first.json["digest"] != second.json["digest"]
    assert second.json["run"].endswith("runs/trap-2")


def test_a_trap_is_named_the_others_go_on_and_the_exit_code_is_3(place: Any) -> None:
    result = place.lockstep("run", "trap.toml", "--input", "items.jsonl")
    assert result.code == 3
    assert "2 out, 1 failed" in result.out
    assert re.search(r"failed +agent boom\.\d: trapped", result.out)
    assert re.search(r'item "b": agent boom\.\d failed', result.out)
    assert "lockstep verify" in result.out


def test_failed_agents_and_items_are_in_the_json(place: Any) -> None:
    result = place.lockstep("run", "trap.toml", "--input", "items.jsonl", "--json")
    assert result.code == 3
    assert [name.split(".")[0] for name in result.json["agents_failed"]] == ["boom"]
    assert (result.json["items_failed"], result.json["state"]) == (1, "finished")


def test_a_provider_that_is_not_got_is_told_loudly(place: Any) -> None:
    place.write("both.toml", (place.path / "fleet.toml").read_text().replace(
        '["cpu"]', '["cuda", "cpu"]').replace("{", "{{").replace("}", "}}"))  # fmt: skip
    result = place.lockstep("run", "both.toml", "--input", "items.jsonl", "--json")
    assert result.code == 0
    if result.json["provider"] == "cuda":
        pytest.skip("CUDA is here")
    assert "lockstep: warning: cuda: " in result.err and "running on cpu" in result.err
    assert len(result.json["notes"]) == 1


@pytest.mark.parametrize("durability", ["memory", "sync"])
def test_durability_does_not_change_the_digest(place: Any, durability: str) -> None:
    args = ("run", "trap.toml", "--input", "items.jsonl", "--json")
    other = place.lockstep(*args, "--durability", durability)
    assert other.json["digest"] == place.lockstep(*args).json["digest"]


@pytest.mark.parametrize("args", [("--json",), ()])
def test_a_closed_stdout_pipe_is_quiet_and_keeps_the_exit_code(
    place: Any, args: tuple[str, ...]
) -> None:
    process = place.start("run", "trap.toml", "--input", "items.jsonl", *args)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr:
        told = process.stderr.read()
    assert process.wait() == 3
    assert "Broken" not in told and "Traceback" not in told and "Exception" not in told


def test_a_full_disk_behind_stdout_is_one_line(place: Any) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lockstep.cli.main", "agent", "--help"],
            env=place.env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "No space left on device" in done.stderr


def _on_terminal(place: Any, columns: int, env: dict[str, str]) -> tuple[int, str]:
    """Run with standard error on a terminal of that width; exit code and what it showed."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    args = ("run", "fleet.toml", "--input", "items.jsonl")
    process = subprocess.Popen(
        [sys.executable, "-m", "lockstep.cli.main", *args],
        cwd=place.path,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # EIO: nobody has the terminal open any more.
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(), shown.decode()


def test_progress_on_a_terminal_of_40_columns_fits_and_is_cleared(place: Any) -> None:
    code, shown = _on_terminal(place, 40, place.env)
    assert code == 0
    drawn = re.findall(r"\r(?:\x1b\[2m)?([^\r\x1b]+)(?:\x1b\[0m)?\x1b\[K", shown)
    assert drawn and all(len(line) < 40 for line in drawn)
    assert any("/3" in line for line in drawn)
    assert shown.rstrip().endswith("\r\x1b[K")


def test_no_color_keeps_the_line_and_drops_the_colours(place: Any) -> None:
    _, shown = _on_terminal(place, 80, place.env | {"NO_COLOR": "1"})
    assert "/3" in shown and not re.search(r"\x1b\[[0-9;]*m", shown)


def test_a_dumb_terminal_gets_plain_lines(place: Any) -> None:
    _, shown = _on_terminal(place, 80, place.env | {"TERM": "dumb"})
    assert "\x1b" not in shown and "lockstep: run folder:" in shown


def test_arrival_order_is_said_and_verified(place: Any) -> None:
    result = place.lockstep("run", "fleet.toml", "--input", "items.jsonl", "--order", "arrival")
    assert result.code == 0, result.err
    assert "repeats      from its record only (not regenerative): arrival order" in result.out
    verified = place.lockstep("verify", "runs/small-1")
    assert verified.code == 0, verified.err


def test_items_are_read_from_standard_input(place: Any) -> None:
    source = '[sources.lines]\nkind = "stdin"\n'
    trap = (place.path / "trap.toml").read_text().replace("{", "{{").replace("}", "}}")
    place.write("stream.toml", trap + source)
    text = '{"id": "x", "n": 1}\n{"id": "y", "n": 2}\nno item\n{"id": "z", "n": 3}\n'
    done = subprocess.run(
        [sys.executable, "-m", "lockstep.cli.main", "run", "stream.toml", "--run-dir", "run"],
        cwd=place.path,
        env=place.env,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "[sources.lines] standard input:3: not valid JSON" in done.stderr
    assert "3 in, 2 out, 1 failed" in done.stdout
    assert "refused      1 line of standard input was no item" in done.stdout
    ids = [
        json.loads(line)["id"]
        for line in (place.path / "run/output.jsonl").read_text().splitlines()
    ]
    assert ids == ["x", "y", "z"]
    assert place.lockstep("verify", "run").code == 0
