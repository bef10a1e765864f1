"""The process of the front end: a job on its standard input, whose end is that of the service."""

import asyncio
import json
import logging
import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lockstep.workers.http.app import Served
from lockstep.workers.http.asking import SEND_S
from lockstep.workers.http.control import Control
from lockstep.workers.http.guard import HEAD_BYTES_MAX, Guard
from lockstep.workers.service.log import Log

SAID_S = 10.0  # Between two lines of the server's library.
HEAD_S = 15.0  # To send the head of a request, from its first byte or that of the connection.
IDLE_S = 60  # Between two requests of one connection.
END_S = 4  # To write what is left when the service ends.
CONNECTIONS_MAX = 512
FILES_MIN = 4 * CONNECTIONS_MAX  # Each may have a connection to the control socket, too.


class Protocol(H11Protocol):
    """One connection, with a bound on how many there are and on how long a head may take."""

    def connection_made(self, transport: Any) -> None:
        """As asyncio has it."""
        super().connection_made(transport)
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(0)  # We hear of everything that is not taken.
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        """As asyncio has it."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio has it."""
        self._stop_waiting()
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """As asyncio has it: who takes nothing for long has gone, also when we are done."""
        super().pause_writing()
        self._taken()
        self._watch_unread()

    def resume_writing(self) -> None:
        """As asyncio has it."""
        self._taken()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """As uvicorn has it: what follows is the head of the next request, in its time."""
        super().on_response_complete()
        self._wait()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn has it, while it handles the parser's error: what came is no request."""
        error, app = sys.exception(), self.app
        assert isinstance(error, h11.RemoteProtocolError) and isinstance(app, Served)
        said = app.malformed(error)
        headers = [*said.raw_headers, (b"connection", b"close")]
        try:
            for event in (
                h11.Response(status_code=said.status_code, headers=headers),
                h11.Data(data=bytes(said.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # In a body whose request is being answered, or may have no answer with a body.
        self.transport.close()

    def _wait(self) -> None:
        """A head that has not come has so long, from when we began to wait for it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._late is None and self._begun():
            self._late = self.loop.call_later(HEAD_S, self.transport.abort)

    def _begun(self) -> bool:
        """Whether more has to come: the first head of a connection, the rest of a later one, or
        of the body of a request that was answered without it."""
        if self.cycle is None or self.conn.their_state is not h11.IDLE:
            return True
        return bool(self.conn.trailing_data[0])

    def _watch_unread(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(SEND_S, self._unread_long, left)

    def _unread_long(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._watch_unread()  # Slow, and there.
        else:
            self.transport.abort()

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Said(logging.Handler):
    """What the server's library says, among our lines; not as often as a client makes it say so."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._unsaid, self._next_s = 0, 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """As logging has it."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            self._unsaid += 1
            return
        more = {"left_out_before": self._unsaid} if self._unsaid else {}
        self._unsaid, self._next_s = 0, now_s + SAID_S
        self._log.warning(f"HTTP: {record.getMessage()}", **more)


class Server(uvicorn.Server):
    """Leaves when its standard input ends."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn has it."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(0, self._heard)

    def _heard(self) -> None:
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            self.should_exit = True


def main() -> None:
    """Entry of the process."""
    job = json.loads(sys.stdin.buffer.readline())
    log = Log(2, os.environ)
    said = logging.getLogger("uvicorn")
    said.addHandler(Said(log))
    said.propagate = False
    _raise_limit()
    guard = Guard(job["token"], job["hosts"])
    served = Served(Control(Path(job["control"])), guard, log.error)
    config = uvicorn.Config(
        served,
        http=Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=END_S,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
    Server(config).run(sockets=[socket.socket(fileno=job["listen"])])


def _raise_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MIN if hard == resource.RLIM_INFINITY else min(FILES_MIN, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main()
