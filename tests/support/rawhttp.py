"""HTTP over a bare socket: what no client library would send, and what comes back."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

ANSWER_S_MAX = 120.0  # A server that says nothing for so long hangs.


class Reply(NamedTuple):
    """What came back; status 0: the connection ended before a whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


NOTHING = Reply(0, {}, b"")


def connect(address: str) -> socket.socket:
    """A connection to a front end, by the address that its service tells."""
    parts = urlsplit(address)
    assert parts.hostname is not None and parts.port is not None
    made = socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_S_MAX)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def request(path: str, body: bytes = b"", method: str = "POST", **headers: str) -> bytes:
    """The bytes of a whole request; ``content_type`` becomes Content-Type, and so on."""
    given = {"host": "localhost", "content-type": "application/json"}
    given |= {key.replace("_", "-"): value for key, value in headers.items()}
    if body or method == "POST":
        given.setdefault("content-length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in given.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ask(address: str, data: bytes, end: bool = False) -> Reply:
    """Send bytes on a connection of their own; the answer. ``end``: say that no more comes."""
    with connect(address) as connection:
        try:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # It had heard enough, and may have said so.
        return hear(connection)


def hear(connection: socket.socket) -> Reply:
    """One answer, to its end.

    Raises:
        TimeoutError: nothing came for `ANSWER_S_MAX`.
    """
    heard = b""
    while b"\r\n\r\n" not in heard:
        more = _more(connection)
        if not more:
            return NOTHING
        heard += more
    head, _, body = heard.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
    status = int(first.split()[1])
    if status == 100:
        return hear(connection)
    whole = headers.get("content-length")
    chunked = "chunked" in headers.get("transfer-encoding", "")
    while (whole is None or len(body) < int(whole)) and not (
        chunked and body.endswith(b"0\r\n\r\n")
    ):
        more = _more(connection)
        if not more:  # Where no length was told, that is the end.
            return Reply(0 if whole or chunked else status, headers, body)
        body += more
    return Reply(status, headers, body)


def _more(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except ConnectionResetError:
        return b""
