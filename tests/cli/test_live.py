"""Runs that are alive, are stopped by a person, or lost their supervisor."""

import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from lockstep.cli.top import NO_SUMMARY
from lockstep.workers.identity import read_journal

WATCHDOG_S = 120.0
AGENT = {
    *("name", "index", "pid", "state", "step", "turns", "fuel", "mailbox", "requests", "stall_s"),
    *("cpu_s", "memory_bytes"),
}


def _until(reached: Callable[[], bool]) -> None:
    """Look until it is so; a watchdog ends what hangs."""
    end_s = time.monotonic() + WATCHDOG_S
    while not reached():
        assert time.monotonic() < end_s, "the watchdog ended a wait"


def test_top_shows_a_live_run_and_a_second_run_in_its_folder_is_refused(
    place: Any, live: Any
) -> None:
    live()
    found = place.lockstep("top", "run", "--json").json
    supervisor = found["supervisor"]["pid"]
    assert set(found) == {"run", "state", "reason", "agents", "inference", "supervisor"}
    assert found["run"] == "run"
    assert (found["state"], found["reason"]) == ("running", "")
    assert [set(agent) for agent in found["agents"]] == [AGENT, AGENT]
    assert [agent["name"] for agent in found["agents"]] == ["spin", "calm"]
    assert found["agents"][0]["state"] == "running"
    for agent in found["agents"]:
        os.kill(agent["pid"], 0)
    assert found["inference"] == {
        **dict.fromkeys(("pid", "cpu_s", "memory_bytes")),
        "step": 0,
        "rows": 0,
        "tickets_waiting": 0,
        "tokens": 0,
        "tokens_per_s": 0,
    }
    table = place.lockstep("top", "run")
    assert table.out.splitlines()[0] == "state       running"
    assert f"supervisor  pid {supervisor}" in table.out and "spin" in table.out
    second = place.lockstep("run", "endless.toml", "--run-dir", "run")
    assert second.code == 2 and f"process {supervisor} is running it" in second.err
    verified = place.lockstep("verify", "run")
    assert verified.code == 2 and f"process {supervisor} is still running it" in verified.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_run_with_its_journal_whole(
    place: Any, live: Any, number: signal.Signals
) -> None:
    process = live("--json")
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert '"state": "stopped"' in out and '"reason": "interrupted"' in out
    assert "Traceback" not in err and "state        stopped: interrupted" in err
    assert "logged" not in err
    journal = read_journal(place.path / "run")
    assert len(journal.frames) > 2 and journal.torn_bytes == 0
    after = place.lockstep("top", "run", "--json").json
    pids = [after["supervisor"]["pid"], after["inference"]["pid"]]
    assert [*pids, *(agent["pid"] for agent in after["agents"])] == [None] * 4
    assert [set(agent) for agent in after["agents"]] == [AGENT, AGENT]
    assert {agent["state"] for agent in after["agents"]} == {"gone"}
    assert (after["state"], after["reason"]) == ("stopped", "interrupted")
    shown = place.lockstep("top", "run").out
    assert shown.splitlines()[0] == "state       stopped: interrupted"
    assert "- rows, - tickets waiting" in shown


def _status(pid: int, key: str) -> str:
    """A line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(key))


def test_a_second_signal_ends_it_at_once(place: Any, live: Any) -> None:
    process = live()
    supervisor = place.lockstep("top", "run", "--json").json["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGSTOP)  # So that the first request is never answered.
    _until(lambda: _status(supervisor, "State") == "T")
    process.send_signal(signal.SIGINT)
    _until(lambda: int(_status(supervisor, "ShdPnd"), 16) & 1 << (signal.SIGINT - 1) != 0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped at once" in err and "Traceback" not in err
    read_journal(place.path / "run")


def test_a_storm_of_signals_ends_in_one_line(place: Any, live: Any) -> None:
    process = live()

    def ended() -> bool:
        os.kill(process.pid, signal.SIGTERM)  # Not through Popen: that would reap it.
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.pid, how) is not None

    _until(ended)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err and "Exception" not in err


def test_a_killed_supervisor_is_told_and_top_shows_no_process(place: Any, live: Any) -> None:
    process = live()
    os.kill(place.lockstep("top", "run", "--json").json["supervisor"]["pid"], signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 3
    assert "ended with SIGKILL" in err and "is whole up to its last record" in err
    # With its board still there, and after the next start swept it.
    for _ in range(2):
        found = place.lockstep("top", "run", "--json").json
        assert found["supervisor"]["pid"] is None
        assert (found["state"], found["reason"]) == ("ended", NO_SUMMARY)
        assert list(found["inference"].values()) == [None] * 8
        shown = place.lockstep("top", "run").out
        assert shown.splitlines()[0] == f"state       ended {NO_SUMMARY}"
        assert "step -, - rows, - tickets waiting" in shown
        assert [(a["name"], a["pid"], a["state"]) for a in found["agents"]] == [
            ("spin", None, "gone"),
            ("calm", None, "gone"),
        ]
        assert place.lockstep("run", "trap.toml", "--input", "items.jsonl").code == 3


def test_top_on_a_terminal_is_redrawn_until_the_run_has_ended(place: Any, live: Any) -> None:
    process = live()
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 6, 40, 0, 0))
    command = [sys.executable, "-m", "lockstep.cli.main", "top", "run"]
    env = {**os.environ, "TERM": "xterm"}
    watching = subprocess.Popen(
        command, cwd=place.path, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while shown.count(b"\x1b[H") < 3:
        shown += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    process.communicate()
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # EIO: nobody has the terminal open any more.
            break
    os.close(ours)
    assert watching.wait() == 0
    before, *frames, last = shown.decode().split("\x1b[H")
    last, after = last.split("\x1b[?25h\x1b[?1049l")
    assert before == "\x1b[?1049h\x1b[?25l"
    for frame in (*frames, last):
        lines = frame.removesuffix("\x1b[J").split("\r\n")
        assert lines[0] == "state       running\x1b[K"
        assert len(lines) == 6 and lines[-1].split()[:2] == ["spin", "running"]
        assert max(len(line.removesuffix("\x1b[K")) for line in lines) == 39
    assert after.splitlines()[0] == "state       stopped: interrupted"
    assert "spin" in after and "calm" in after


def test_top_looks_once_where_it_is_asked_to_and_ends_by_an_interrupt(
    place: Any, live: Any
) -> None:
    live()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lockstep.cli.main", "top", "run"]
    env = {**os.environ, "TERM": "xterm"}
    once = subprocess.run([*command, "--once"], cwd=place.path, env=env, stdout=theirs, check=False)
    shown = os.read(ours, 65536)
    assert once.returncode == 0 and b"state       running" in shown and b"\x1b[H" not in shown
    watching = subprocess.Popen(command, cwd=place.path, env=env, stdout=theirs, stderr=theirs)
    while b"\x1b[J" not in shown:
        shown += os.read(ours, 65536)
    watching.send_signal(signal.SIGINT)
    assert watching.wait() == 0
    os.close(theirs)
    os.close(ours)
