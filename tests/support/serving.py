"""Services: `lockstep serve` as a process of its own, a fake service manager, and a client."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lockstep.workers.service.client import Connection

PROGRAM = [sys.executable, "-m", "lockstep.cli.main", "serve"]
POLL_S = 0.01  # Between two looks at what another process does.


class Manager:
    """What a service manager is to a service: a datagram socket."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify.sock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self.said: list[str] = []

    def hear(self) -> list[str]:
        """What came since the last time, line by line."""
        lines: list[str] = []
        self._socket.setblocking(False)
        try:
            while True:
                lines += self._socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            self.said += lines
            return lines

    def until(self, line: str) -> None:
        """Until it came; the test's own time-out ends a failure."""
        self._socket.setblocking(True)
        while True:
            found = self._socket.recv(4096).decode().splitlines()
            self.said += found
            if line in found:
                return

    def close(self) -> None:
        self._socket.close()


class Serving:
    """One service on one state folder, through all its lives. Use it in a ``with``."""

    def __init__(self, folder: Path, fleet: Path, *args: str, watchdog_s: float = 0.0) -> None:
        self.folder, self.fleet, self._args = folder, fleet, args
        self.state = folder / "state"
        self.manager = Manager(folder)
        self._watchdog_s = watchdog_s
        self.log = folder / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.manager.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The service, which was started."""
        assert self._process is not None
        return self._process

    def begin(self) -> Serving:
        """Start it, not waiting for anything."""
        env = {**os.environ, "NOTIFY_SOCKET": self.manager.address}
        if self._watchdog_s:
            env["WATCHDOG_USEC"] = str(int(self._watchdog_s * 1e6))
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [*PROGRAM, str(self.fleet), "--state", str(self.state), *self._args],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def start(self) -> Serving:
        """Start it, until it is ready."""
        self.begin()
        self.wait(lambda: "READY=1" in self.manager.hear())
        return self

    def wait(self, fact: Callable[[], bool]) -> None:
        """Until something is so, while the service lives; a time-out of the test ends a failure."""
        while not fact():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(POLL_S)

    def connect(self) -> Connection:
        return Connection(self.state)

    def ask(self, **command: Any) -> dict[str, Any]:
        """One request and its answer."""
        with self.connect() as connection:
            connection.tell(command)
            return connection.hear()

    def submit(self, item: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.ask(do="submit", item=item, **more)

    def status(self) -> dict[str, Any]:
        return self.ask(do="status")

    def run(self, name: str) -> dict[str, Any]:
        """What the status says of a run."""
        (found,) = [run for run in self.status()["runs"] if run["run"] == name]
        return dict(found)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()

    def drain(self) -> int:
        """The exit code."""
        self.ask(do="drain")
        return self.process.wait()
