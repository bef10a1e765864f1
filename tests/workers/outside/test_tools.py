"""Tools: real commands, with every limit, and none that survives the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fleets
import pytest

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet_file import parse
from lockstep.engine.record import FLAG_ERROR
from lockstep.workers.launch import ENVIRONMENT
from lockstep.workers.loop import Loop
from lockstep.workers.outside.commands import Command, find_commands
from lockstep.workers.outside.frames import Frames
from lockstep.workers.outside.tool_call import ToolCall, failure, printable
from lockstep.workers.outside.tool_process import Say, Shop

Answers = dict[int, tuple[bytes, int]]


def command(script: str, **more: Any) -> Command:
    """A tool that runs a shell script."""
    values: dict[str, Any] = {
        "name": "tool",
        "path": "/bin/sh",
        "arguments": ("sh", "-c", script),
        "folder": "/",
        "env": {"PATH": os.defpath},
        "timeout_s": 60.0,
        "output_bytes_max": 32_768,
        "answer_bytes_max": 65_504,
        "parallel_max": 4,
        **more,
    }
    return Command(**values)


class Bench:
    """A shop of tools and its customer, in one loop."""

    def __init__(self, *commands: Command) -> None:
        self.loop = Loop()
        ours, theirs = socket.socketpair()
        self.answers: Answers = {}
        self.order: list[int] = []
        self.shop = Shop(self.loop, commands, theirs)
        self.frames = Frames(self.loop, ours, self._taken, lambda: None)

    def call(self, number: int, payload: bytes = b"", tool: int = 0) -> None:
        self.frames.send(Say.CALL, number, tool.to_bytes(4, "little") + payload)

    def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self.loop.turn()

    def answer(self, number: int) -> tuple[bytes, int]:
        self.until(lambda: number in self.answers)
        return self.answers[number]

    def close(self) -> None:
        self.frames.close()
        self.shop.close()
        self.loop.close()

    def _taken(self, what: int, call: int, body: bytes) -> None:
        assert what == Say.ANSWER
        self.answers[call] = (body[4:], int.from_bytes(body[:4], "little"))
        self.order.append(call)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*commands: Command) -> Bench:
        made.append(Bench(*commands))
        return made[-1]

    yield make
    for one in made:
        one.close()


def failed(answer: tuple[bytes, int]) -> dict[str, Any]:
    """What a failed call says."""
    payload, flags = answer
    assert flags == FLAG_ERROR
    value: dict[str, Any] = json.loads(payload)
    assert value.keys() == {"error", "status", "stderr"}
    return value


def wait_gone(pid: int) -> None:
    """Until the process is dead; the test's time-out bounds it."""
    while not fleets.gone(pid):
        pass


def fleeing(folder: Path) -> str:
    """A script that leaves a process in a session of its own; it says its pid."""
    inner = f"echo $$ > {folder}/pid; exec sleep infinity"
    return f"setsid sh -c '{inner}' & read pid < {folder}/pid; echo $pid"


# -- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 70_000, 300_000])
def test_what_goes_in_comes_out(bench: Callable[..., Bench], size: int) -> None:
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]
    shop = bench(command("exec cat", output_bytes_max=size))
    shop.call(1, payload)
    assert shop.answer(1) == (payload, 0)


def test_a_tool_that_does_not_read_its_input_is_fine(bench: Callable[..., Bench]) -> None:
    shop = bench(command("exec echo done"))
    shop.call(1, bytes(1_000_000))
    assert shop.answer(1) == (b"done\n", 0)


def test_an_exit_status_fails_the_call_with_the_end_of_standard_error(
    bench: Callable[..., Bench],
) -> None:
    script = "head -c 5000 /dev/zero | tr '\\0' x >&2; printf '\\033[31mend' >&2; echo out; exit 3"
    shop = bench(command(script))
    shop.call(1)
    said = failed(shop.answer(1))
    assert (said["error"], said["status"]) == ("ended with exit status 3", 3)
    assert said["stderr"].endswith("xx\\x1b[31mend")
    assert len(said["stderr"]) == 2048 + len("\\x1b") - 1


def test_a_signal_that_ends_it_is_named(bench: Callable[..., Bench]) -> None:
    shop = bench(command("kill -SEGV $$"))
    shop.call(1)
    assert failed(shop.answer(1)) == {
        "error": "was killed by SIGSEGV",
        "status": None,
        "stderr": "",
    }


def test_nothing_but_the_fleets_environment_is_handed_down(bench: Callable[..., Bench]) -> None:
    shop = bench(command("/usr/bin/env; ls /proc/$$/fd; pwd", env={"A": "1"}))
    shop.call(1)
    said = shop.answer(1)[0].decode().split()
    assert "A=1" in said and not any(line.startswith(("HOME=", "USER=", "PATH=")) for line in said)
    assert [line for line in said if line.isdigit()] == ["0", "1", "2"] and said[-1] == "/"


# -- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        "exec sleep infinity",
        "trap '' TERM INT HUP; while :; do sleep 1; done",
        "exec >&- 2>&-; exec sleep infinity",
        "sleep infinity & sleep infinity",
        "exec yes >&2",
    ],
)
def test_a_tool_that_takes_too_long_is_killed(bench: Callable[..., Bench], script: str) -> None:
    shop = bench(command(script, timeout_s=0.1))
    shop.call(1)
    said = failed(shop.answer(1))
    assert said["error"].startswith("took longer than 100 ms and was killed ([tools.tool]")
    assert said["status"] is None


def test_a_tool_that_says_too_much_is_killed(bench: Callable[..., Bench]) -> None:
    shop = bench(command("exec yes", output_bytes_max=100))
    shop.call(1)
    assert failed(shop.answer(1))["error"].startswith("wrote more than 100 bytes and was killed")


@pytest.mark.parametrize(("size", "good"), [(99, True), (100, True), (101, False)])
def test_the_bound_of_the_output_is_exact(
    bench: Callable[..., Bench], size: int, good: bool
) -> None:
    shop = bench(command(f"head -c {size} /dev/zero", output_bytes_max=100))
    shop.call(1)
    payload, flags = shop.answer(1)
    assert (payload == bytes(size), flags) == ((True, 0) if good else (False, FLAG_ERROR))


def test_a_call_ends_when_its_command_ends_whoever_it_left_behind(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    # Grandchildren hold standard output open, in the group and in a session of their own.
    os.mkfifo(tmp_path / "pid")
    shop = bench(command(f"sleep infinity & {fleeing(tmp_path)}"))
    shop.call(1)
    payload, flags = shop.answer(1)
    assert flags == 0
    fled = int(payload)
    assert not fleets.gone(fled)
    os.kill(fled, signal.SIGKILL)  # The tools process ends it with the run; this is none.


def test_what_was_written_counts_though_the_end_was_seen_before_it_was_read(tmp_path: Path) -> None:
    loop, answers = Loop(), []
    script = command("echo said >&2; echo done; exit 1"), command("echo done")
    for one in script:
        call = ToolCall(loop, 1, one, b"", lambda call, *answer: answers.append(answer))
        os.waitid(os.P_PID, call.pid, os.WEXITED | os.WNOWAIT)
        call._ended()  # As when its pidfd comes first of what is ready.
    loop.close()
    assert failed(answers[0])["stderr"] == "said\n" and answers[1] == (b"done\n", 0)


def test_the_group_dies_with_its_leader(bench: Callable[..., Bench], tmp_path: Path) -> None:
    shop = bench(command(f"sleep infinity & echo $! > {tmp_path}/pid; exit 4"))
    shop.call(1)
    assert failed(shop.answer(1))["status"] == 4
    wait_gone(int((tmp_path / "pid").read_text()))


def test_calls_of_one_tool_wait_in_order_and_those_of_another_do_not(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "gate")
    slow = command(f"read line; echo $line >> {tmp_path}/log; cat {tmp_path}/gate", parallel_max=1)
    shop = bench(slow, command("exec cat"))
    for number in (1, 2, 3):
        shop.call(number, b"%d\n" % number)
    shop.call(4, b"other", tool=1)
    assert shop.answer(4) == (b"other", 0)
    assert len(shop.shop.pids()) == 1
    for number in (1, 2, 3):
        assert number not in shop.answers
        with open(tmp_path / "gate", "w"):
            pass
        assert shop.answer(number) == (b"", 0)
    assert (tmp_path / "log").read_text() == "1\n2\n3\n"


def test_a_stopped_call_is_killed_and_gives_no_answer(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pid")
    shop = bench(
        command(f"echo $$ > {tmp_path}/pid; exec sleep infinity", parallel_max=1),
        command("exec cat"),
    )
    shop.call(1)
    shop.call(2)  # Waits; stopped before it began.
    shop.frames.send(Say.STOP, 2)
    shop.until(lambda: bool(shop.shop.pids()))
    pid = int((tmp_path / "pid").read_text())
    shop.frames.send(Say.STOP, 1)
    shop.frames.send(Say.STOP, 99)  # Was answered long ago.
    shop.call(3, b"x", tool=1)
    assert shop.answer(3) == (b"x", 0)
    wait_gone(pid)
    assert list(shop.answers) == [3] and shop.shop.pids() == []


def test_a_command_that_went_away_meanwhile_fails_the_call(bench: Callable[..., Bench]) -> None:
    shop = bench(command("", path="/nowhere/at/all"))
    shop.call(1)
    assert failed(shop.answer(1))["error"] == "cannot be started: No such file or directory"


def test_closing_the_shop_kills_every_command(bench: Callable[..., Bench], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    shop = bench(command(f"echo $$ > {tmp_path}/pid; exec sleep infinity"))
    shop.call(1)
    shop.until(lambda: bool(shop.shop.pids()))
    pid = int((tmp_path / "pid").read_text())
    shop.frames.close()
    shop.until(lambda: not shop.shop.open)
    wait_gone(pid)


# -- words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"x" * 2048, "\U0001f600".encode() * 512, b"\xff" * 2048])
@pytest.mark.parametrize("room", [992, 65_504])
def test_what_a_failure_says_always_fits_its_record(said: bytes, room: int) -> None:
    data = failure("ended with exit status 1", 1, said, room)
    assert len(data) <= room
    value = json.loads(data)
    assert value["error"] == "ended with exit status 1"
    assert printable(said).endswith(value["stderr"])
    assert bool(value["stderr"]) == bool(said)


# -- what is checked before anything starts ----------------------------------------------------

FLEET = """
[fleet]
record_bytes_max = 40_000
[agents.a]
module = "a.wasm"
[tools.search]
"""


def refusal(text: str, folder: Path) -> str:
    with pytest.raises(UsageError) as error:
        find_commands(parse((FLEET + text).encode(), "fleet.toml"), folder, "fleet.toml")
    return str(error.value)


def test_a_command_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no program")
    assert "fleet.toml: [tools.search]: command 'no-such-command-here' is not" in refusal(
        'command = ["no-such-command-here"]', tmp_path
    )
    assert "command './gone': no such file" in refusal('command = ["./gone"]', tmp_path)
    assert "command './plain': cannot be" in refusal('command = ["./plain"]', tmp_path)
    assert "command './.': cannot be" in refusal('command = ["./."]', tmp_path)


def test_an_answer_that_no_record_holds_is_refused_with_the_limit(tmp_path: Path) -> None:
    said = refusal('command = ["sh"]\noutput_bytes_max = 39_969', tmp_path)
    assert "output_bytes_max is 39969, expected at most 39968" in said


def test_a_command_with_a_slash_is_relative_to_the_fleet_file(tmp_path: Path) -> None:
    (tmp_path / "tool.sh").write_text("#!/bin/sh\npwd\n")
    (tmp_path / "tool.sh").chmod(0o700)
    fleet = parse((FLEET + 'command = ["./tool.sh", "x"]').encode(), "fleet.toml")
    (found,) = find_commands(fleet, tmp_path, "fleet.toml")
    assert (found.path, found.folder) == (str(tmp_path / "tool.sh"), str(tmp_path))
    assert found.arguments == ("./tool.sh", "x")


# -- the process ------------------------------------------------------------------------------

DRIVER = """
import os, signal, sys
from pathlib import Path
from lockstep.workers.outside.gate import Gate
from lockstep.workers.loop import Loop
from lockstep.workers.outside.commands import Command
from lockstep.workers.outside.tools import Tools
from lockstep.engine import actions

answers = []
class Taker:
    def outside(self, what, source, payload=b"", flags=0):
        answers.append((source, payload, flags))

def died(name, child):
    print("died", child.reap(), flush=True)
    answers.append(None)

def make(*scripts, **more):
    values = dict(name="t", folder="/", env={"PATH": os.defpath}, timeout_s=60, parallel_max=4,
                  output_bytes_max=1000, answer_bytes_max=2000) | more
    return [Command(path="/bin/sh", arguments=("sh", "-c", s), **values) for s in scripts]

loop = Loop()
def until(count):
    while len(answers) < count:
        loop.turn()
"""


def driven(code: str) -> str:
    """What a supervisor of tools prints."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER + code], env=os.environ | ENVIRONMENT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_answers_come_in_by_the_gate_and_the_end_leaves_no_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    code = f"""
tools = Tools(loop, Gate(Taker()), make("cat", {fleeing(tmp_path)!r}), died)
tools.call(actions.CallTool(7, 0, 0, b"hello"))
until(1)
tools.call(actions.CallTool(8, 0, 1, b""))
until(2)
fled = int(answers[1][1])
print(answers[0], os.path.exists(f"/proc/{{fled}}"))
pid = tools.pid
tools.end()
print(os.path.exists(f"/proc/{{pid}}"), os.path.exists(f"/proc/{{fled}}"))
"""
    assert driven(code) == "(7, b'hello', 0) True\nFalse False\n"


def test_a_command_that_does_not_read_does_not_end_the_tools_process() -> None:
    code = """
tools = Tools(loop, Gate(Taker()), make("exec <&-; echo done"), died)
for call in range(10):
    tools.call(actions.CallTool(call, 0, 0, bytes(200_000)))
until(10)
tools.end()
print({(payload, flags) for _, payload, flags in answers})
"""
    assert driven(code) == "{(b'done\\n', 0)}\n"


def test_signals_core_files_and_session_of_a_command_are_those_of_a_fresh_program() -> None:
    code = """
script = "grep -E '^Sig(Ign|Blk)' /proc/self/status; ulimit -c; ps -o sid= -p $$; echo $$"
tools = Tools(loop, Gate(Taker()), make(script), died)
tools.call(actions.CallTool(1, 0, 0, b""))
until(1)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    os.kill(tools.pid, number)  # Meant for the run, or for its group: not for this process.
tools.call(actions.CallTool(2, 0, 0, b""))
until(2)
tools.end()
print(answers[1][1].decode())
"""
    ignored, ignored_mask, blocked, blocked_mask, core, session, pid = driven(code).split()[:7]
    # Without signal 32: it is the C library's own, and stays as whoever started us has left it.
    standard = 2**31 - 1
    masks = {ignored: int(ignored_mask, 16) & standard, blocked: int(blocked_mask, 16) & standard}
    assert masks == {"SigIgn:": 0, "SigBlk:": 0} and core == "0" and session == pid


def test_every_descendant_dies_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pids")
    code = f"""
script = "sleep infinity & a=$!; setsid sleep infinity & echo $$ $a $! > {tmp_path}/pids; wait"
tools = Tools(loop, Gate(Taker()), make(script), died)
tools.call(actions.CallTool(1, 0, 0, b""))
print(tools.pid, flush=True)
while True:
    loop.turn()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER + code],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    pids = [int(process.stdout.readline())]
    pids += [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 4 and not any(fleets.gone(pid) for pid in pids)
    process.kill()
    process.communicate()
    for pid in pids:
        wait_gone(pid)


def test_a_killed_tools_process_is_told_and_takes_its_commands_with_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    code = f"""
tools = Tools(loop, Gate(Taker()), make("echo $$ > {tmp_path}/pid; exec sleep infinity"), died)
tools.call(actions.CallTool(1, 0, 0, b""))
command = int(Path("{tmp_path}/pid").read_text())
os.kill(tools.pid, signal.SIGKILL)
until(1)
tools.end()
tools.end_orphans()
print(command)
"""
    first, pid = driven(code).splitlines()
    assert first == "died -9"
    wait_gone(int(pid))


def test_every_command_dies_when_the_group_of_the_supervisor_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    code = f"""
tools = Tools(loop, Gate(Taker()), make("echo $$ > {tmp_path}/pid; exec sleep infinity"), died)
tools.call(actions.CallTool(1, 0, 0, b""))
print(tools.pid, flush=True)
while True:
    loop.turn()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER + code],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    pids = [int(process.stdout.readline()), int((tmp_path / "pid").read_text())]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for pid in pids:
        wait_gone(pid)


def test_a_run_without_tools_has_no_process_for_them() -> None:
    code = """
tools = Tools(loop, Gate(Taker()), [], died)
print(tools.pid)
tools.end()
"""
    assert driven(code) == "0\n"


SILENT = """
import os, signal, sys
from lockstep.engine.actions import CallTool
from lockstep.workers.loop import Loop
from lockstep.workers.outside import tools
from lockstep.workers.outside.commands import Command
from lockstep.workers.outside.gate import Gate
command = Command("cat", "/bin/cat", ("cat",), "/", {}, 0.2, 1000, 1000, 1)
loop, came, gone = Loop(), [], []
class Taker:
    def outside(self, what, source, payload=b"", flags=0):
        came.append(source)
def died(name, child):
    gone.append((name, child.reap()))
made = tools.Tools(loop, Gate(Taker()), [command], died)
made.call(CallTool(1, 0, 0, b"one"))
while not came:
    loop.turn()
made._silence_s = 0.5  # From here on: it had to come to life first.
os.kill(made.pid, signal.SIGSTOP)
made.call(CallTool(2, 0, 0, b"two"))
while not gone:
    loop.turn()
print(came, *gone[0], sep="|")
"""


def test_a_tools_process_that_hangs_is_killed_and_named() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SILENT], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, **ENVIRONMENT},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    name = "the tools process, which had said nothing for 0.5 s,"
    assert done.stdout.strip() == f"[1]|{name}|-9"
