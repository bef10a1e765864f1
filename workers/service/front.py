"""The HTTP front end, seen from the service: a process of its own, which knows the control socket.

The listening socket is the service's, so the address stays, and whoever connects while the process
is brought back waits a moment. When the service dies the process reads the end of its standard
input and leaves.
"""

import errno
import importlib.util
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.workers.launch import ENVIRONMENT
from lockstep.workers.loop import Loop, Timer
from lockstep.workers.service.log import Log
from lockstep.workers.service.options import Http

NEEDED = ("starlette", "uvicorn", "prometheus_client")  # Of the extra `http`.
BACKLOG = 256  # Connections that wait for the process.
WAIT_S_MIN, WAIT_S_MAX = 0.1, 30.0  # Before it is started again; doubled each time.
GOOD_S = 60.0  # After a life of this length it is a first accident again.
END_S = 5.0  # To write the answers that it has when the service ends.
TOKEN_BYTES_MAX = 4096
TAKEN_S, LOOK_S = 2.0, 0.05  # An address that is taken is tried for so long, so often.


class Front:
    """One front end, through all its lives.

    Attributes:
        address: As clients write it.
    """

    def __init__(self, loop: Loop, log: Log, http: Http, control: Path) -> None:
        """Listen.

        Args:
            loop: Of the service.
            log: Likewise.
            http: What a person decides.
            control: The control socket.

        Raises:
            UsageError: the extra is missing, or the address cannot be had.
        """
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(
                f"--http needs the extra `http`, {missing[0]} is not installed: "
                "pip install 'lockstep-runtime[http]'"
            )
        self._loop, self._log, self._http, self._control = loop, log, http, control
        self._socket = _listening(http)
        if http.exposed:
            log.warning("others on this machine can read the file of --http-token-file: chmod 600")
        self.address = _address(http.host, self._socket.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: Timer | None = None
        self._restarts = self._accidents = 0
        self._began_s = 0.0
        self._pidfd = -1

    def start(self) -> None:
        """Start the process."""
        self._timer = None
        self._began_s = time.monotonic()
        try:
            self._process = subprocess.Popen(
                # -P: what lies in the working folder must not shadow a module.
                [sys.executable, "-P", "-m", "lockstep.workers.http.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                bufsize=0,
                env={**os.environ, **ENVIRONMENT},
                start_new_session=True,  # Ctrl-C is ours alone.
                pass_fds=(self._socket.fileno(),),
            )
        except OSError as error:
            self._fall_back(f"no room for the process: {error}")
            return
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # It died at once, which its end will tell.
            self._process.stdin.write(json.dumps(self._job()).encode() + b"\n")
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.watch(self._pidfd, self._gone)

    def row(self) -> dict[str, Any]:
        """For the status of the service."""
        process = self._process
        return {
            "address": self.address,
            "pid": process.pid if process is not None else None,
            "state": "live" if process is not None else "backoff",
            "restarts": self._restarts,
        }

    def close(self) -> None:
        """Let it write what it has, and end it. It is not restarted."""
        self._socket.close()
        if self._timer is not None:
            self._timer.cancel()
        process, self._process = self._process, None
        if process is None:
            return
        self._unwatch()
        assert process.stdin is not None
        process.stdin.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _job(self) -> dict[str, Any]:
        return {
            "listen": self._socket.fileno(),
            "control": str(self._control),
            "token": self._http.token,
            "hosts": list(self._http.hosts),
        }

    def _gone(self) -> None:
        process, self._process = self._process, None
        assert process is not None and process.stdin is not None
        code = process.wait()
        self._unwatch()
        process.stdin.close()
        self._fall_back(signal.Signals(-code).name if code < 0 else f"exit status {code}")

    def _unwatch(self) -> None:
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)

    def _fall_back(self, how: str) -> None:
        """An accident: again, in a while, for as long as the service lives."""
        if time.monotonic() - self._began_s > GOOD_S:
            self._accidents = 0
        wait_s = min(WAIT_S_MIN * 2**self._accidents, WAIT_S_MAX)
        self._accidents = min(self._accidents + 1, 16)
        self._restarts += 1
        self._log.warning(f"the HTTP front end ended ({how}); it is started again", in_s=wait_s)
        self._timer = self._loop.after(wait_s, self.start)


def http_of(address: str, token_file: Path | None, hosts: tuple[str, ...]) -> Http:
    """What a person decides, checked.

    Args:
        address: HOST:PORT, a host of IPv6 in brackets.
        token_file: Has the token that clients must have; None: none is needed.
        hosts: Names that clients may call the service by.

    Raises:
        UsageError: the address is none, or needs a token; the file cannot be used.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (
        colon
        and host
        and port.isascii()
        and port.isdecimal()
        and len(port) < 6
        and int(port) < 1 << 16
    ):
        raise UsageError(f"--http is {address!r}, expected HOST:PORT, such as 127.0.0.1:8000")
    token = _token(token_file) if token_file is not None else ""
    if not token and not _loopback(host):
        raise UsageError(
            f"--http {address}: others can reach it, so it needs --http-token-file; without one "
            "only 127.0.0.1, [::1] and localhost are served"
        )
    exposed = token_file is not None and bool(token_file.stat().st_mode & 0o044)
    return Http(host, int(port), token, tuple(name.lower() for name in hosts), exposed)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _token(path: Path) -> str:
    try:
        data = path.read_bytes()[: TOKEN_BYTES_MAX + 1].strip()
    except OSError as error:
        raise UsageError(f"--http-token-file {path}: {error.strerror}") from None
    text = data.decode("ascii", "replace")
    if not 1 <= len(data) <= TOKEN_BYTES_MAX or not all("!" <= c <= "~" for c in text):
        raise UsageError(
            f"--http-token-file {path}: expected one word of visible ASCII, of at most "
            f"{TOKEN_BYTES_MAX} bytes"
        )
    return text


def _listening(http: Http) -> socket.socket:
    until_s = time.monotonic() + TAKEN_S
    while True:
        try:
            found = socket.getaddrinfo(
                http.host, http.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            made = socket.create_server(found[0][4][:2], family=found[0][0], backlog=BACKLOG)
        except OSError as error:
            # The front end of a service that was killed is about to let go of it.
            if error.errno == errno.EADDRINUSE and time.monotonic() < until_s:
                time.sleep(LOOK_S)
                continue
            why = f"{_address(http.host, http.port)}: {error.strerror or error}"
            raise UsageError(f"--http: cannot listen at {why}") from None
        except UnicodeError as error:  # No name that could be asked for.
            where = _address(http.host, http.port)
            raise UsageError(f"--http: cannot listen at {where}: {error}") from None
        made.setblocking(False)
        return made


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
