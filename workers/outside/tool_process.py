"""The tools process: starts commands, keeps their limits, and outlives nobody's interest in them.

It is apart from the supervisor so that a fork, a pipe or a runaway command costs the run nothing,
and so that somebody is left to clean up when the supervisor is killed: the end of the socket says
so. It adopts what commands leave behind (orphans come to it, also those that fled into a session of
their own) and leaves when all of them are dead.
"""

import ctypes
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path

from lockstep.engine.record import FLAG_ERROR
from lockstep.workers.loop import Loop
from lockstep.workers.outside.commands import Command
from lockstep.workers.outside.frames import Frames
from lockstep.workers.outside.tool_call import ToolCall, failure
from lockstep.workers.spawn import PR_SET_PDEATHSIG

PR_SET_CHILD_SUBREAPER = 36
REAP_S_MAX = 3.0  # For commands that not even SIGKILL ends (in the kernel, on a dead disk).
LOOK_S = 0.005
_LIBC = ctypes.CDLL(None)


class Say(IntEnum):
    """What frames between supervisor and tools process say."""

    CALL = 1  # Body: u32 tool, payload.
    STOP = 2
    ANSWER = 3  # Body: u32 flags, payload.


class Shop:
    """Every call that runs or waits. One tool's calls start in the order in which they came."""

    def __init__(self, loop: Loop, commands: Sequence[Command], end: socket.socket) -> None:
        """Serve the other end of a socket.

        Attributes:
            open: Until the other end is closed.
        """
        self._loop, self._commands = loop, commands
        self._running: dict[int, ToolCall] = {}
        self._waiting: list[deque[tuple[int, bytes]]] = [deque() for _ in commands]
        self._counts = [0] * len(commands)
        self.open = True
        self._frames = Frames(loop, end, self._taken, self.close)

    def close(self) -> None:
        """Nobody is interested any more: end every call."""
        self.open = False
        self._frames.close()
        for call in self._running.values():
            call.stop()
        self._running = {}

    def pids(self) -> list[int]:
        """Of the commands that run."""
        return [call.pid for call in self._running.values()]

    def _taken(self, what: int, number: int, body: bytes) -> None:
        if what == Say.CALL:
            tool = int.from_bytes(body[:4], "little")
            self._waiting[tool].append((number, body[4:]))
            self._start(tool)
        elif what == Say.STOP:
            self._stop(number)

    def _start(self, tool: int) -> None:
        command, waiting = self._commands[tool], self._waiting[tool]
        while waiting and self._counts[tool] < command.parallel_max and self.open:
            number, payload = waiting.popleft()
            answered = partial(self._answered, tool)
            try:
                call = ToolCall(self._loop, number, command, payload, answered)
            except OSError as error:
                why = f"cannot be started: {error.strerror}"
                self._say(number, failure(why, None, b"", command.answer_bytes_max), FLAG_ERROR)
            else:
                self._running[number] = call
                self._counts[tool] += 1

    def _answered(self, tool: int, call: ToolCall, payload: bytes, flags: int) -> None:
        del self._running[call.number]
        self._counts[tool] -= 1
        self._say(call.number, payload, flags)
        self._start(tool)

    def _say(self, number: int, payload: bytes, flags: int) -> None:
        self._frames.send(Say.ANSWER, number, flags.to_bytes(4, "little") + payload)

    def _stop(self, number: int) -> None:
        call = self._running.pop(number, None)
        if call is None:
            for waiting in self._waiting:
                for entry in [entry for entry in waiting if entry[0] == number]:
                    waiting.remove(entry)
            return
        call.stop()
        tool = self._commands.index(call.command)
        self._counts[tool] -= 1
        self._start(tool)


def tools_main(
    commands: Sequence[Command], end: socket.socket, make: Callable[..., Shop] = Shop
) -> int:
    """Body of the tools process. Leaves when the other end is closed and everything is dead.

    Args:
        commands, end: As of `Shop`.
        make: Makes the shop.
    """
    adopt_orphans()
    # Dying with the supervisor, or with its group, would leave commands behind: the socket's end
    # is told in any case.
    _LIBC.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
    os.setsid()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # A command need not read its input.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not ignored: that would be handed down to commands. A handler is not.
        signal.signal(number, lambda number, frame: None)
    loop = Loop()
    shop = make(loop, commands, end)
    while shop.open:
        loop.turn()
        _reap_orphans(shop.pids())
    end_descendants()
    return 0


def adopt_orphans() -> None:
    """From now on, who loses its parent becomes a child of this process, not of init."""
    _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap_orphans(commands: Sequence[int]) -> None:
    """Bury whom we adopted. A command itself is its call's to reap."""
    for pid in children():
        if pid not in commands:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def end_descendants() -> None:
    """Kill and reap every child until there is none: the orphans of the killed come to us."""
    end_s = time.monotonic() + REAP_S_MAX
    while (pids := children()) and time.monotonic() < end_s:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)  # Ours and not reaped: the pid is nobody else's.
            except PermissionError:
                pass  # It became another user's, by a setuid program.
        time.sleep(LOOK_S)
        for pid in pids:
            os.waitpid(pid, os.WNOHANG)


def children() -> list[int]:
    """Processes of ours that were not reaped."""
    text = Path(f"/proc/self/task/{os.getpid()}/children")
    try:
        return [int(pid) for pid in text.read_text().split()]
    except FileNotFoundError:  # A kernel without it.
        return _children_by_parent()


def _children_by_parent() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue  # It ended meanwhile.
            if int(fields[1]) == os.getpid():
                found.append(int(entry.name))
    return found
