"""Mishaps of streams: readers that leave, full disks, no terminal, narrow ones, plain locales."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

PROGRAM = [sys.executable, "-m", "lockstep.cli.main"]
RUN = ("run", "trap.toml", "--input", "items.jsonl")


def _started(place: Any, script: str, *args: str) -> "subprocess.CompletedProcess[str]":
    """By a shell, which does to the streams what the script says; ``"$@"`` is the command."""
    command = ["/bin/sh", "-c", script, "sh", *PROGRAM, *args]
    return subprocess.run(command, cwd=place.path, env=place.env, capture_output=True, text=True,
                          check=False)  # fmt: skip


def test_a_run_without_any_stream_is_kept(place: Any) -> None:
    done = _started(place, 'exec "$@" <&- >&- 2>&-', *RUN)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert len((place.path / "runs/trap-1/output.jsonl").read_text().splitlines()) == 3


def test_a_summary_that_has_no_room_is_one_line_and_the_run_is_kept(place: Any) -> None:
    done = _started(place, 'exec "$@" > /dev/full', *RUN)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("lockstep: error: standard output: No space")
    assert place.lockstep("journal", "check", "runs/trap-1").code == 0


def test_messages_that_have_no_room_change_nothing(place: Any) -> None:
    done = _started(place, 'exec "$@" 2> /dev/full', *RUN, "--json")
    assert done.returncode == 3 and json.loads(done.stdout)["state"] == "finished"


@pytest.mark.parametrize("verb", [("journal", "export"), ("replay", "--trace")])
def test_a_reader_that_has_seen_enough_is_no_failure(done: Any, verb: tuple[str, ...]) -> None:
    # Not `| head`, whose end the shell would tell of.
    ended = _started(done[0], '{ "$@"; echo $? >&2; } | read line', *verb, "runs/small-1")
    assert ended.stderr.splitlines()[-1:] == ["0"]
    assert "Broken" not in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"},
                                    {"PYTHONUTF8": "0", "LC_ALL": "POSIX"}], ids=str)  # fmt: skip
def test_a_plain_locale_shows_what_it_can(done: Any, locale: dict[str, str]) -> None:
    place = replace(done[0], env=done[0].env | locale)
    (place.path / "grün.toml").write_text("[agents.größe]\n", encoding="utf-8")
    result = place.lockstep("graph", "grün.toml")
    (place.path / "grün.toml").unlink()
    assert result.code == 2 and result.err.count("\n") == 1 and "gr" in result.err


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_the_terminal(done: Any, columns: int) -> None:
    place = replace(done[0], env=done[0].env | {"COLUMNS": str(columns)})
    lines = place.lockstep("help", "run").out.splitlines()
    told = [line for line in lines if not line.lstrip().startswith("lockstep ")]
    assert 38 < max(map(len, told)) <= min(max(columns, 52), 80)  # What click goes down and up to.


def test_colours_are_for_terminals_unless_the_person_says_otherwise(done: Any) -> None:
    def told(**env: str) -> str:
        text: str = replace(done[0], env=done[0].env | env).lockstep("verify", "x").err
        return text

    red = "\x1b[31mlockstep: error:\x1b[0m"
    assert told(CLICOLOR_FORCE="1", TERM="dumb").startswith(red)
    assert told(CLICOLOR_FORCE="1", NO_COLOR="1").startswith("lockstep: error:")


@pytest.mark.parametrize(
    ("said", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"CLICOLOR": "0"}, False)],
    ids=str,
)
def test_a_terminal_has_colours_unless_somebody_says_no(
    done: Any, said: dict[str, str], colours: bool
) -> None:
    ours, theirs = pty.openpty()
    subprocess.run([*PROGRAM, "verify", "x"], cwd=done[0].path, env=done[0].env | said,
                   stdin=subprocess.DEVNULL, stderr=theirs, check=False)  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 4096)
    os.close(ours)
    assert (b"\x1b[" in shown) is colours and b"no such folder" in shown


def test_without_a_terminal_top_looks_once(done: Any) -> None:
    result = done[0].lockstep("top", "runs/small-1")
    assert result.code == 0 and "\x1b" not in result.out
    assert result.out.splitlines()[0] == "state       finished"


def test_json_is_one_line_of_ascii_whatever_the_locale(place: Any) -> None:
    (place.path / "items.jsonl").write_text('{"id": "ü", "n": 1}\n', encoding="utf-8")
    plain = replace(place, env=place.env | {"PYTHONIOENCODING": "ascii"})
    result = plain.lockstep(*RUN, "--json")
    assert result.code == 0 and result.out.count("\n") == 1 and result.out.isascii()
    line = Path(result.json["output"]).read_text(encoding="utf-8")
    assert json.loads(line)["id"] == "ü"
