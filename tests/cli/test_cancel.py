"""``lockstep cancel``: a run, or a part of it, taken back from another terminal."""

import os
import signal
from typing import Any

import pytest

TOOLED = """
[fleet]
name = "tooled"
[agents.caller]
module = "{guests}/caller.wasm"
input = "broadcast"
tools = ["wait"]
[tools.wait]
command = ["sleep", "infinity"]
timeout_ms = 600_000
[sources.chat]
kind = "socket"
"""


def _start(place: Any) -> Any:
    """A run that waits for its tools, once it listens."""
    place.write("tooled.toml", TOOLED)
    process = place.start("run", "tooled.toml", "--input", "items.jsonl", "--run-dir", "run")
    while not (place.path / "run" / "control.sock").exists():
        assert process.poll() is None, process.communicate()
    return process


def test_a_part_of_a_run_and_then_the_run_is_cancelled(place: Any) -> None:
    process = _start(place)
    unknown = place.lockstep("cancel", "run", "--item", "z")
    assert unknown.code == 2 and 'run: no item has the id "z"' in unknown.err
    item = place.lockstep("cancel", "run", "--item", "b", "--json")
    assert item.code == 0 and item.json["event"] == 1 and item.json["tag"].endswith(".0")
    assert "item b" in item.err
    twice = place.lockstep("cancel", "run", "--item", "b")
    assert twice.code == 2 and "item b is finished already" in twice.err
    ticket = place.lockstep("cancel", "run", "--ticket", "9")
    assert ticket.code == 2 and "no request waits under ticket 9" in ticket.err
    source = place.lockstep("cancel", "run", "--source", "chat")
    assert source.code == 0 and "source chat" in source.out
    whole = place.lockstep("cancel", "run")
    assert whole.code == 0 and "the whole run" in whole.out
    out, err = process.communicate()
    assert process.returncode == 3 and "Traceback" not in err
    assert "stopped: cancelled by " in out
    assert "(not regenerative): 1 end of a source, 2 cancels by a person" in out
    assert '"error":"cancelled by ' in (place.path / "run/output.jsonl").read_text()
    after = place.lockstep("cancel", "run")
    assert after.code == 2 and "the run does not go on any more" in after.err
    verified = place.lockstep("verify", "run")
    assert verified.code == 0, verified.err


def test_a_run_that_went_away_without_taking_its_socket_is_no_run(place: Any) -> None:
    process = _start(place)
    supervisor = place.lockstep("top", "run", "--json").json["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGKILL)
    process.communicate()
    assert (place.path / "run" / "control.sock").exists()
    result = place.lockstep("cancel", "run")
    assert result.code == 2 and "the run does not go on any more" in result.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nowhere",), "nowhere: no such folder"),
        (("items.jsonl",), "items.jsonl: not a folder"),
        ((".",), "no run in this folder"),
        ((".", "--item", "a", "--ticket", "3"), "--item and --ticket: give one of them"),
        ((".", "--ticket", "0"), "--ticket"),
    ],
)
def test_what_cannot_be_cancelled_is_refused(place: Any, args: tuple[str, ...], words: str) -> None:
    result = place.lockstep("cancel", *args)
    assert (result.code, result.out) == (2, "") and words in result.err
    assert result.err.count("\n") == 1
