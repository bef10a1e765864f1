"""A held run: one supervisor process, what it says, and the inlet through which it is spoken to.

When this process dies the supervisor's standard input closes, and it stops cleanly.
"""

import json
import os
import select
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from lockstep.workers.job import Job
from lockstep.workers.launch import completed, process_of
from lockstep.workers.loop import Loop
from lockstep.workers.outside.line_buffer import LineBuffer

READ_BYTES = 1 << 20
LINE_BYTES_MAX = 1 << 30  # Of one of ours: whatever it says is bounded by the fleet.
CLOSED = b'{"closed":'
TOKENS = b'{"tokens":'
Heard = Callable[[dict[str, Any]], None]


class Holder(Protocol):
    """Who holds a run."""

    def said(self, what: str, value: Any) -> None:
        """The supervisor's line (workers/report.py)."""

    def closed(self, number: int, lines: bytes) -> None:
        """An item came to its end; ``lines`` are JSON objects with commas between them."""

    def tokens(self, number: int, told: bytes) -> None:
        """Of the item's answer: ``"at":N,"ids":[...]}``, which closes an object."""

    def ended(self) -> None:
        """The process is gone, and all that it said was heard."""


class Held:
    """One supervisor process, from its start to its end."""

    def __init__(self, loop: Loop, job: Job, holder: Holder) -> None:
        """Start it.

        Raises:
            OSError: there is no room for a process.
        """
        self._loop, self._holder = loop, holder
        ours, theirs = socket.socketpair()
        try:
            job = replace(completed(job), inlet=theirs.fileno())
            self._process = process_of((theirs.fileno(),))
            self._pidfd = _watched(self._process)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # It died at once, which its end will tell.
            self._process.stdin.write(job.to_json().encode() + b"\n")
        self._started = self._stopping = False
        self._report = LineBuffer(LINE_BYTES_MAX)
        self._inlet = LineBuffer(LINE_BYTES_MAX)
        self._asked: deque[Heard] = deque()  # Who waits for the next answers, in order.
        self._unsent = bytearray()
        self._events = select.EPOLLIN
        self._socket = ours
        ours.setblocking(False)
        self._stdout = self._process.stdout.fileno()
        os.set_blocking(self._stdout, False)
        loop.watch(ours.fileno(), self._ready)
        loop.watch(self._stdout, self._hear_report)
        loop.watch(self._pidfd, self._gone)

    @property
    def pid(self) -> int:
        """Of the supervisor, which leads a session of its own."""
        return self._process.pid

    def ask(self, line: bytes, heard: Heard) -> None:
        """Send a line to the inlet; ``heard`` is called with its answer, or never."""
        self._asked.append(heard)
        self._unsent += line + b"\n"
        self._send()

    def stop(self) -> None:
        """Let it stop cleanly, with its journal whole."""
        if not self._stopping:
            self._stopping = True
            self._interrupt()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def status(self) -> str:
        """How the process ended, for people."""
        code = self._process.returncode
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    # -- what it says ---------------------------------------------------------------------------

    def _hear_report(self) -> None:
        data = _read(self._stdout)
        if data is None:
            return
        if not data:
            self._loop.forget(self._stdout)
        self._report.feed(data)
        while isinstance(line := self._report.next(), bytes):
            ((what, value),) = json.loads(line).items()
            if what == "started":
                self._started = True
                self._interrupt()
            self._holder.said(what, value)

    def _interrupt(self) -> None:
        # Before it has started, a signal would meet an interpreter that does not count them yet.
        if self._started and self._stopping:
            self._process.send_signal(signal.SIGINT)

    def _ready(self) -> None:
        self._send()
        data = _read(self._socket.fileno())
        if data is None:
            return
        if not data:
            self._loop.forget(self._socket.fileno())
        self._inlet.feed(data)
        while isinstance(line := self._inlet.next(), bytes):
            if line.startswith(CLOSED):
                number, _, lines = line.removeprefix(CLOSED).partition(b',"lines":[')
                self._holder.closed(int(number), lines.removesuffix(b"]}"))
            elif line.startswith(TOKENS):
                number, _, told = line.removeprefix(TOKENS).partition(b",")
                self._holder.tokens(int(number), told)
            else:
                self._asked.popleft()(json.loads(line))

    def _send(self) -> None:
        descriptor = self._socket.fileno()
        if not self._loop.watches(descriptor):
            return  # It is gone, and its end will be told.
        with suppress(OSError):
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        events = select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)
        if events != self._events:
            self._events = events
            self._loop.change(descriptor, events)

    def _gone(self) -> None:
        self._process.wait()
        os.set_blocking(self._stdout, True)  # Nobody writes any more: what is left, and the end.
        self._socket.setblocking(True)
        for descriptor, hear in (
            (self._stdout, self._hear_report),
            (self._socket.fileno(), self._ready),
        ):
            while self._loop.watches(descriptor):
                hear()
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._socket.close()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        self._holder.ended()


def _watched(process: "subprocess.Popen[bytes]") -> int:
    """A descriptor that tells its end; without one it is ended: it would hold the run unseen."""
    try:
        return os.pidfd_open(process.pid)
    except OSError:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        raise


def _read(descriptor: int) -> bytes | None:
    """What is there: None for nothing yet, empty at the end, or when it broke."""
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def cpu_ticks(session: int) -> int:
    """CPU time that the processes of a session have used so far: whether it gets on."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == session:
                total += sum(int(field) for field in fields[11:15])
    return total
