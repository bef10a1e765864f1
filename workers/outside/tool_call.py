"""One call of a tool: a host command from its start to its answer, with every limit on the way.

The command leads a session and a process group of its own. However the call ends, the whole group
is killed before its leader is reaped: until then its number cannot belong to anybody else.
"""

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable

from lockstep.engine.record import FLAG_ERROR
from lockstep.workers.loop import Handler, Loop, Timer
from lockstep.workers.outside.commands import Command

STDERR_BYTES_KEPT = 2048
READ_BYTES = 1 << 16
PIPE_BYTES_MAX = 1 << 20  # What a pipe holds at most (fs.pipe-max-size).


Answered = Callable[["ToolCall", bytes, int], None]  # payload, flags


class ToolCall:
    """One call that runs.

    Attributes:
        number: Of the call.
        command: Of its tool.
    """

    def __init__(
        self, loop: Loop, number: int, command: Command, payload: bytes, answered: Answered
    ) -> None:
        """Start the command.

        Args:
            loop: Of this thread.
            number: Of the call.
            command: To start.
            payload: For its standard input.
            answered: Called once with the answer, unless `stop` comes first.

        Raises:
            OSError: it cannot be started.
        """
        self.number, self.command = number, command
        self._loop, self._answered = loop, answered
        self._input = memoryview(payload)
        self._output = bytearray()
        self._said = bytearray()  # The end of standard error.
        self._failure = ""  # Why it was killed.
        self._process = subprocess.Popen(
            command.arguments,
            executable=command.path,
            cwd=command.folder,
            env=command.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # And nothing else to do in the child: it is a vfork then.
        )
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.watch(self._pidfd, self._ended)
        self._watch(1, self._read_output)
        self._watch(2, self._read_error)
        self._watch(0, self._write, select.POLLOUT)
        self._timer: Timer = loop.after(command.timeout_s, self._overdue)

    @property
    def pid(self) -> int:
        """Of the command, while the call runs."""
        return self._process.pid

    def stop(self) -> None:
        """Kill it; nobody waits for the answer."""
        self._end()

    # -- the three pipes ------------------------------------------------------------------------

    def _pipe(self, number: int) -> int:
        """The descriptor of ours that is its standard input (0), output (1) or error (2)."""
        pipe = (self._process.stdin, self._process.stdout, self._process.stderr)[number]
        assert pipe is not None
        return pipe.fileno()

    def _watch(self, number: int, handler: Handler, events: int = select.POLLIN) -> None:
        descriptor = self._pipe(number)
        os.set_blocking(descriptor, False)
        self._loop.watch(descriptor, handler, events)

    def _write(self) -> None:
        assert self._process.stdin is not None
        try:
            while self._input:
                self._input = self._input[os.write(self._pipe(0), self._input) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # It does not want to know: that is its business.
        self._loop.forget(self._pipe(0))
        self._process.stdin.close()

    def _read_output(self) -> None:
        data = self._read(1)
        self._output += data
        if len(self._output) > self.command.output_bytes_max and not self._failure:
            self._kill(f"wrote more than {self.command.output_bytes_max} bytes and was killed "
                       f"([tools.{self.command.name}] output_bytes_max)")  # fmt: skip
        if self._failure:
            self._output.clear()

    def _read_error(self) -> None:
        self._said += self._read(2)
        del self._said[:-STDERR_BYTES_KEPT]

    def _read(self, number: int) -> bytes:
        """A part of standard output (1) or error (2); empty: nothing now, or no more."""
        descriptor = self._pipe(number)
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            self._loop.forget(descriptor)  # It may go on without: its exit ends the call.
        return data

    # -- ends -----------------------------------------------------------------------------------

    def _overdue(self) -> None:
        self._kill(f"took longer than {self.command.timeout_s * 1000:.0f} ms and was killed "
                   f"([tools.{self.command.name}] timeout_ms)")  # fmt: skip

    def _kill(self, why: str) -> None:
        self._failure = self._failure or why
        kill_group(self._process.pid)

    def _ended(self) -> None:
        """The command has ended: its group ends with it, what it wrote counts."""
        kill_group(self._process.pid)
        self._drain(1, self._read_output)
        self._drain(2, self._read_error)
        status = self._process.wait()
        self._end()
        payload, flags = self._answer(status)
        self._answered(self, payload, flags)

    def _drain(self, number: int, read: Handler) -> None:
        """Read what is in a pipe. Not to its end: one who fled the group may hold it open."""
        descriptor = self._pipe(number)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        for _ in range(PIPE_BYTES_MAX // READ_BYTES + 1):
            if not self._loop.watches(descriptor) or not poll.poll(0):
                return
            read()

    def _end(self) -> None:
        """Let go of everything. The group is killed while its leader still has its number."""
        self._timer.cancel()
        if self._process.returncode is None:
            kill_group(self._process.pid)
            self._process.wait()
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed:
                self._loop.forget(pipe.fileno())
                pipe.close()

    def _answer(self, status: int) -> tuple[bytes, int]:
        if not self._failure and status == 0:
            return bytes(self._output), 0
        why = self._failure or _how(status)
        known = status if status >= 0 and not self._failure else None
        return failure(why, known, bytes(self._said), self.command.answer_bytes_max), FLAG_ERROR


def failure(why: str, status: int | None, said: bytes, bytes_max: int) -> bytes:
    """The payload of a failed call: JSON with ``error``, ``status`` and ``stderr``.

    Args:
        why: For ``error``.
        status: Exit status, if it ended by itself.
        said: The end of its standard error; the beginning is cut where there is no room.
        bytes_max: Of the payload.
    """
    text = printable(said)
    while True:
        value = {"error": why, "status": status, "stderr": text}
        data = json.dumps(value, ensure_ascii=False).encode()
        over = len(data) - bytes_max
        if over <= 0 or not text:
            return data[:bytes_max] if over > 0 else data
        text = text[(over + 3) // 4 :]  # A character takes four bytes at most.


def printable(data: bytes) -> str:
    """Text of bytes; what would act in a terminal is escaped."""
    text = data.decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def kill_group(leader: int) -> None:
    """SIGKILL to a process group whose leader was not reaped yet."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # It is ending, or became another user's by a setuid program: not ours to kill.


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}"
