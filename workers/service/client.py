"""Speaking to a service over its control socket (workers/service/desk.py has the words)."""

import json
import os
import select
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.workers.outside.lines import ShortPath, uid_of
from lockstep.workers.service.state import info_of

ANSWER_S_MAX = 30.0  # What is answered at once; a service that does not is stopped, or stuck.
READ_BYTES = 1 << 16


class Connection:
    """One connection to a service. Use it in a ``with``.

    Args:
        state: The service's state folder.

    Attributes:
        socket: For who waits for it beside other things.
    """

    def __init__(self, state: Path) -> None:
        """Connect.

        Raises:
            UsageError: there is no service, or it does not run.
        """
        self._state = state
        path = Path(str(info_of(state).get("socket", "")))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with ShortPath(path.parent, path.name) as short:
                self.socket.connect(short)
        except OSError as error:
            self.socket.close()
            raise UsageError(
                f"{state}: the service does not run, or is still starting ({path}: "
                f"{error.strerror})"
            ) from None
        if uid_of(self.socket) not in (os.getuid(), 0) and os.getuid():
            self.socket.close()
            raise UsageError(f"{state}: another user's process listens at {path}")
        self._heard = bytearray()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def tell(self, command: dict[str, Any]) -> None:
        """Send a request. Raises UsageError when the service has gone."""
        # As UTF-8: escapes take twice the bytes, so that what fits a record might not fit a line.
        text = json.dumps(command, ensure_ascii=False)
        data = text.encode("utf-8", "surrogatepass") + b"\n"  # Half a pair the service refuses.
        self.socket.settimeout(0.0)
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | select.POLLOUT)
        try:
            while data:
                # Who does not read its answers is not read either: so both at once.
                ((_, ready),) = poll.poll()
                if ready & ~select.POLLOUT:
                    self._receive()
                if ready & select.POLLOUT:
                    data = data[self.socket.send(data) :]
        except OSError as error:
            raise self._lost(error.strerror or "") from None

    def hear(self, seconds: float | None = None) -> dict[str, Any]:
        """The next answer.

        Args:
            seconds: How long to wait; None: as long as it takes.

        Raises:
            UsageError: the service went away, or did not answer in time.
        """
        self.socket.settimeout(seconds)
        try:
            while (end := self._heard.find(b"\n")) < 0:
                self._receive()
        except TimeoutError:
            raise UsageError(
                f"{self._state}: the service did not answer within {seconds:g} s: is its process "
                "stopped?"
            ) from None
        except OSError as error:
            raise self._lost(error.strerror or "") from None
        value: dict[str, Any] = json.loads(self._heard[:end])
        del self._heard[: end + 1]
        return value

    def _receive(self) -> None:
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError(0, "it closed the connection")
        self._heard += data

    def _lost(self, why: str) -> UsageError:
        return UsageError(f"{self._state}: the service went away ({why})")


def ask(state: Path, command: dict[str, Any]) -> dict[str, Any]:
    """One request and its answer.

    Raises:
        UsageError: as `Connection`, or it was refused; the reason is in it.
    """
    with Connection(state) as connection:
        connection.tell(command)
        answer = connection.hear(ANSWER_S_MAX)
    if "error" in answer:
        raise UsageError(f"{state}: {answer['error']}")
    return answer


def submit(
    connection: Connection, items: Iterable[dict[str, Any]], client: str, wait: bool, window: int
) -> Iterator[dict[str, Any]]:
    """Hand items in, so many at once, and give the answers as they come; the order is the items'.

    One that is refused because too much waits has an answer like any other; every answer has its
    item in ``asked``, so that it can be asked for again.

    Raises:
        UsageError: the service went away.
    """
    waiting: list[dict[str, Any]] = []
    for item in items:
        if len(waiting) == window:
            yield {**connection.hear(), "asked": waiting.pop(0)}
        connection.tell({"do": "submit", "item": item, "client": client, "wait": wait})
        waiting.append(item)
    for item in waiting:
        yield {**connection.hear(), "asked": item}
