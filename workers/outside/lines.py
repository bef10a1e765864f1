"""Lines over a Unix socket in the run folder: each line is answered with one line of JSON.

For the control socket and for sources. Only the person who started the run (and root) is heard.
Slow, vanishing and babbling clients cost nothing: lines, clients and unsent answers are bounded,
and who does not read its answers is not read either.
"""

import json
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from lockstep.engine.outside import Outside
from lockstep.workers.loop import Loop, Timer
from lockstep.workers.outside.line_buffer import LineBuffer

CLIENTS_MAX = 64
UNSENT_BYTES_MAX = 1 << 16
READ_BYTES = 1 << 16
UNWATCHED, HANG_UP = -1, 0  # In place of events; a poll tells of hanging up unasked.
PAUSE_S = 1.0  # Before the next look: for a descriptor for a client, or at one that waits.
_PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred.


class Answer:
    """The place of one answer in a client's order. `give` it once, now or later.

    Attributes:
        value: What was given.
        vain: The client has gone: nobody hears it.
    """

    __slots__ = ("_given", "_said", "vain", "value")

    def __init__(
        self, given: Callable[[], None], said: Callable[[bytes], None] = lambda _: None
    ) -> None:
        self.value: dict[str, Any] | bytes | None = None
        self.vain = False
        self._given, self._said = given, said

    def more(self, line: bytes) -> None:
        """A line on the way to the answer; dropped when the client does not read."""
        self._said(line)

    def give(self, value: dict[str, Any] | bytes) -> None:
        """The answer, or its JSON on one line; nothing to a client that is gone."""
        self.value = value
        self._given()


OnLine = Callable[[bytes, Answer], None]


class Host(Protocol):
    """Who has clients."""

    line_bytes_max: int
    idle_s: float
    clients: "dict[int, Client]"

    def on_line(self, line: bytes, answer: Answer) -> None:
        """A client's line, and the place for its answer."""

    def may_read(self) -> bool:
        """Whether there is room for what one more line brings."""


class LineServer:
    """A listening socket and its clients."""

    def __init__(
        self,
        loop: Loop,
        folder: Path,
        name: str,
        line_bytes_max: int,
        on_line: OnLine,
        may_read: Callable[[], bool] = lambda: True,
        idle_s: float = 0.0,
        clients_max: int = CLIENTS_MAX,
    ) -> None:
        """Listen.

        Args:
            loop: Of this thread.
            folder: Where the socket's name appears; its path may be of any length.
            name: Of the socket.
            line_bytes_max: Longer lines are answered with an error.
            on_line: Called with each line and the place for its answer.
            may_read: Asked before each line: whether there is room for what it brings.
            idle_s: A client that waits for nothing and says nothing for so long is sent away; 0:
                never.
            clients_max: More are sent away.

        Raises:
            OSError: the name is taken, or cannot be made.
        """
        self._loop, self._folder, self._name = loop, folder, name
        self.line_bytes_max = line_bytes_max
        self.idle_s, self._clients_max = idle_s, clients_max
        self._on_line, self._may_read = on_line, may_read
        self.clients: dict[int, Client] = {}  # By descriptor.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        before = os.umask(0o177)
        try:
            with ShortPath(folder, name) as path:
                _remove_stale(path)
                self._socket.bind(path)
                self._named = os.lstat(path)
        except OSError:
            self._socket.close()
            raise
        finally:
            os.umask(before)
        self._socket.listen(clients_max)
        self._pause: Timer | None = None
        self._listen()

    def on_line(self, line: bytes, answer: Answer) -> None:
        """As `Host`."""
        self._on_line(line, answer)

    def may_read(self) -> bool:
        """As `Host`."""
        return self._may_read()

    def resume(self) -> None:
        """There may be room again: go on with the clients that wait for it."""
        for client in list(self.clients.values()):
            client.go_on()

    def finish(self) -> None:
        """Hear nobody any more; who waits for an answer gets it."""
        self._unlisten()
        for client in list(self.clients.values()):
            client.finish()

    def close(self) -> None:
        """Send what can be sent, close everybody, take the name away."""
        self._unlisten()
        for client in list(self.clients.values()):
            client.close()

    def _listen(self) -> None:
        self._loop.watch(self._socket.fileno(), self._accept)

    def _unlisten(self) -> None:
        if self._socket.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        path = self._folder / self._name
        try:
            if os.path.samestat(path.lstat(), self._named):  # Else it is somebody else's by now.
                path.unlink()
        except OSError:
            pass  # Somebody took it away, or the folder.

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # It went away again.
        except OSError:  # Out of descriptors: it stays in the queue, and would be told for ever.
            self._loop.forget(self._socket.fileno())
            self._pause = self._loop.after(PAUSE_S, self._listen)
            return
        connection.setblocking(False)
        client = Client(self, self._loop, connection)
        if uid_of(connection) not in (os.getuid(), 0):
            client.refuse("this run is another user's")
        elif len(self.clients) > self._clients_max:
            client.refuse(f"{self._clients_max} clients are connected already")


class Client:
    """One connection."""

    def __init__(self, server: Host, loop: Loop, connection: socket.socket) -> None:
        self._server, self._loop, self._connection = server, loop, connection
        self._descriptor = connection.fileno()
        self._lines = LineBuffer(server.line_bytes_max)
        self._answers: deque[Answer] = deque()
        self._unsent = b""
        self._ended = False  # It will send no more.
        self._events = UNWATCHED
        self._taking = False  # We are in `go_on`.
        self._timer: Timer | None = None
        server.clients[self._descriptor] = self
        self._heard_s = time.monotonic()
        self._watch_idleness(server.idle_s)
        self._await()

    def push(self, line: bytes) -> None:
        """Say something that was not asked for: JSON on one line."""
        self._unsent += line + b"\n"
        self._send()
        self._await()

    def _say(self, line: bytes) -> None:
        if self._open() and len(self._unsent) < UNSENT_BYTES_MAX:
            self.push(line)

    def refuse(self, why: str) -> None:
        """Say why and close."""
        self._unsent = _line({"error": why})
        self.close()

    def close(self) -> None:
        """Send what can be sent, and close."""
        self._send()
        self._gone()

    def finish(self) -> None:
        """Read no more; leave when everything is answered."""
        self._ended = True
        self._await()

    def go_on(self) -> None:
        """Take the lines that are there, as long as there is room for what they bring."""
        self._taking = True
        while self._may_read() and (line := self._lines.next()) is not None:
            self._hear(line)
        self._taking = False
        self._await()

    def _ready(self) -> None:
        if self._events == HANG_UP and _hung_up(self._connection):
            self._gone()
            return
        self._send()
        self.go_on()
        if self._events & select.POLLIN and not self._ended:
            self._receive()
            self.go_on()

    def _receive(self) -> None:
        try:
            data = self._connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._gone()
            return
        self._ended = not data  # A line without an end was not meant yet.
        self._lines.feed(data)
        self._heard_s = time.monotonic()

    def _hear(self, line: bytes | object) -> None:
        answer = Answer(self._answered, self._say)
        self._answers.append(answer)
        if isinstance(line, bytes):
            self._server.on_line(line, answer)
        else:
            bound = self._server.line_bytes_max
            answer.give({"error": f"a line of more than {bound} bytes"})

    def _answered(self) -> None:
        self._heard_s = time.monotonic()  # Until now it waited for us.
        while self._answers and self._answers[0].value is not None:
            self._unsent += _line(self._answers.popleft().value)
        self._send()
        if not self._taking:
            self.go_on()  # There is room for the answers of more lines.

    def _send(self) -> None:
        try:
            while self._unsent and self._open():
                self._unsent = self._unsent[self._connection.send(self._unsent) :]
                self._heard_s = time.monotonic()  # It takes what it asked for.
        except BlockingIOError:
            pass
        except OSError:
            self._gone()

    def _may_read(self) -> bool:
        room = len(self._unsent) < UNSENT_BYTES_MAX and len(self._answers) < UNSENT_BYTES_MAX // 64
        return self._open() and room and self._server.may_read()

    def _await(self) -> None:
        """Wait for what can happen next; a client for which nothing can is done."""
        if not self._open():
            return
        if self._ended and not self._answers and not self._unsent:
            self._gone()
            return
        events = select.POLLOUT if self._unsent else 0
        if self._may_read() and not self._ended:
            events |= select.POLLIN
        if not events and (not self._ended or self._lines.holds_line):
            # What it has said counts, also when it has hung up, which would be told for ever.
            events = UNWATCHED
        if events == self._events:
            return
        if self._events == UNWATCHED:
            self._loop.watch(self._descriptor, self._ready, events)
        elif events == UNWATCHED:
            self._loop.forget(self._descriptor)
        else:
            self._loop.change(self._descriptor, events)
        self._events = events

    def _watch_idleness(self, seconds: float) -> None:
        # One timer for all that it says: a cancelled one stays in the loop until it is due.
        if self._server.idle_s:
            self._timer = self._loop.after(seconds, self._idle)

    def _idle(self) -> None:
        left_s = self._heard_s + self._server.idle_s - time.monotonic()
        if left_s <= 0 and not self._answers:
            self.close()
        else:  # It said something, or waits for us.
            self._watch_idleness(max(left_s, PAUSE_S))

    def _open(self) -> bool:
        return self._server.clients.get(self._descriptor) is self

    def _gone(self) -> None:
        if self._open():
            del self._server.clients[self._descriptor]
            self._loop.forget(self._descriptor)
            for answer in self._answers:
                answer.vain = True
            if self._timer is not None:
                self._timer.cancel()
            self._connection.close()


class ShortPath:
    """A path for a socket address, however long the folder's is (addresses have 108 bytes)."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    def __enter__(self) -> str:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._descriptor = os.open(self._folder, flags)
        return f"/proc/self/fd/{self._descriptor}/{self._name}"

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)


def uid_of(connection: socket.socket) -> int:
    """User of the process at the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, uid, _ = _PEER.unpack(data)
    return int(uid)


def _hung_up(connection: socket.socket) -> bool:
    """Whether nobody is at the other end; one that only says no more still hears."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def _line(value: dict[str, Any] | bytes | None) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return data + b"\n"


def accepted(answer: Answer, event: Outside | None, **more: Any) -> None:
    """Answer a client whose event was taken; None: it was not, the run is over."""
    if event is None:
        answer.give({"error": "the run has ended"})
    else:
        step, micro = event.tag
        answer.give({"ok": True, "event": event.number, "tag": f"{step}.{micro}", **more})


def _remove_stale(path: str) -> None:
    """Remove the socket of a supervisor that was killed: nobody listens there any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        except OSError:
            pass  # There is none, or what has the name is no socket: `bind` says so.
