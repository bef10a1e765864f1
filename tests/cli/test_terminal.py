"""`lockstep top` on a real terminal: keys do what they say, and the terminal is given back."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WATCHDOG_S = 120.0
TOP = [sys.executable, "-m", "lockstep.cli.main", "top", "run"]
BEGIN, END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
# A shell with job control, as far as we need one: runs its arguments in the foreground, takes the
# terminal back when they stop, tells so, and lets them go on when a line comes.
SHELL = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen(sys.argv[1:], process_group=0)
os.tcsetpgrp(0, job.pid)
_, status = os.waitpid(job.pid, os.WUNTRACED)
assert os.WIFSTOPPED(status), status
os.tcsetpgrp(0, os.getpid())
print("stopped", flush=True)
sys.stdin.readline()
os.tcsetpgrp(0, job.pid)
os.kill(job.pid, signal.SIGCONT)
os.waitpid(job.pid, 0)
"""
# Ctrl-Z in the middle of a write.
WRITING = """
import io, os, signal, sys
from lockstep.cli.terminal import Terminal
class Pressed(io.RawIOBase):
    def writable(self):
        return True
    def fileno(self):
        return 1
    def write(self, data):
        if b"a line" in bytes(data):
            os.kill(os.getpid(), signal.SIGTSTP)
        return os.write(1, data)
sys.stdout = io.TextIOWrapper(io.BufferedWriter(Pressed()), "utf-8")
with Terminal() as terminal:
    terminal.draw(["a line"])
    assert list(terminal.keys(3600)) == []
print("over", flush=True)
"""


class Watched:
    """A program on a terminal of its own, and what that shows."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
        self.mode = termios.tcgetattr(self.theirs)
        self.shown = ""
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "TERM": "xterm"},
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    @property
    def frame(self) -> list[str]:
        """The last whole frame, line by line."""
        whole = self.shown.split("\x1b[J")[:-1]
        last = whole[-1].rpartition("\x1b[H")[2] if whole else ""
        return [line.removesuffix("\x1b[K") for line in last.split("\r\n")]

    def until(self, reached: Callable[[], bool]) -> None:
        """Read until it is so; a watchdog ends what hangs."""
        end_s = time.monotonic() + WATCHDOG_S
        while not reached():
            assert time.monotonic() < end_s, self.shown
            over = self.process.poll() is not None
            if select.select([self.ours], [], [], 0.05)[0]:
                self.shown += os.read(self.ours, 65536).decode()
            else:
                assert not over or reached(), self.shown

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def ended(self) -> int:
        """Its exit status, when all that it wrote was read."""
        self.until(lambda: self.process.poll() is not None)
        while select.select([self.ours], [], [], 0)[0]:
            self.shown += os.read(self.ours, 65536).decode()
        return self.process.returncode

    def given_back(self) -> bool:
        return termios.tcgetattr(self.theirs) == self.mode and self.shown.count(
            BEGIN
        ) == self.shown.count(END)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture(scope="module")
def spinning(tmp_path_factory: pytest.TempPathFactory, fill: Any) -> Iterator[Path]:
    """Where a run (in ``run``) has an agent that spins."""
    place = fill(tmp_path_factory.mktemp("spinning"))
    run = place.start("run", "endless.toml", "--input", "items.jsonl", "--run-dir", "run")
    while '"running"' not in place.lockstep("top", "run", "--json").out:
        assert run.poll() is None, run.communicate()
    yield place.path
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=WATCHDOG_S)


@pytest.fixture
def watch(spinning: Path) -> Iterator[Callable[..., Watched]]:
    """Looks at that run."""
    made: list[Watched] = []

    def begin(command: list[str] = TOP) -> Watched:
        made.append(Watched(command, spinning))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def test_keys_sort_filter_pause_and_quit_and_the_terminal_is_given_back(watch: Any) -> None:
    top = watch()
    top.until(lambda: len(top.frame) > 7)
    head, *rows = top.frame[4:7]
    assert head.split()[:2] == ["agent", "index^"] and "cpu%" in head
    assert [row.split()[0] for row in rows] == ["spin", "calm"]
    assert not termios.tcgetattr(top.theirs)[3] & termios.ICANON
    top.press("s")
    top.until(lambda: top.frame[4].split()[0] == "agentv" or top.frame[4].split()[0] == "agent^")
    assert [row.split()[0] for row in top.frame[5:7]] == ["calm", "spin"]
    top.press("/spi")
    top.until(lambda: top.frame[-1] == "filter: spi_")
    top.press("\r")
    top.until(lambda: "filter: spi (escape)" in top.frame[-1])
    assert top.frame[5].split()[0] == "spin" and "calm" not in "".join(top.frame)
    # It burns a core: its share of CPU is seen, not guessed.
    top.until(lambda: float(top.frame[5].split()[4].replace("-", "0")) > 0)
    top.press("?")
    top.until(lambda: any("this help" in line for line in top.frame))
    top.press("x ")
    top.until(lambda: top.frame[-1].startswith("paused"))
    top.press("q")
    assert top.ended() == 0
    assert top.given_back()
    assert "state       running" in top.shown.rpartition(END)[2]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], ids=str
)
def test_a_signal_gives_the_terminal_back(watch: Any, number: signal.Signals) -> None:
    top = watch()
    top.until(lambda: "state       running" in top.frame)
    top.process.send_signal(number)
    assert top.ended() == 0
    assert top.given_back() and "Traceback" not in top.shown


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(watch: Any) -> None:
    top = watch([sys.executable, "-c", SHELL, *TOP])
    top.until(lambda: "state       running" in top.frame)
    top.press("\x1a")
    top.until(lambda: "stopped" in top.shown.rpartition(END)[2])
    assert top.given_back()
    top.shown = ""
    top.press("\n")
    top.until(lambda: BEGIN in top.shown and "state       running" in top.frame)
    assert not termios.tcgetattr(top.theirs)[3] & termios.ICANON
    top.press("q")
    top.ended()
    assert top.given_back()


def test_another_size_of_the_terminal_is_drawn_at_once(watch: Any) -> None:
    top = watch()
    top.until(lambda: len(top.frame) > 7)
    fcntl.ioctl(top.theirs, termios.TIOCSWINSZ, struct.pack("4H", 8, 40, 0, 0))
    top.until(lambda: max(map(len, top.frame)) <= 39)
    assert top.frame[4].split()[:4] == ["agent", "state", "cpu%", "turns"]
    assert len(top.frame) == 8
    top.press("q")
    assert top.ended() == 0


def test_ctrl_z_in_the_middle_of_a_write_waits_for_its_end(watch: Any) -> None:
    top = watch([sys.executable, "-c", SHELL, sys.executable, "-c", WRITING])
    top.until(lambda: "stopped" in top.shown)
    assert top.given_back() and "a line\x1b[K\x1b[J" in top.shown
    top.press("\n")
    top.until(lambda: "over" in top.shown)
    assert top.ended() == 0
    assert top.given_back()
