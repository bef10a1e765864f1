"""Telling a service manager how we are: systemd's notification protocol, without its library.

One datagram of ``KEY=VALUE`` lines to the socket named in NOTIFY_SOCKET. Nobody has to listen: what
cannot be sent is dropped, and a service that nobody watches sends nothing.
"""

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """One connection to whoever watches.

    Args:
        environment: Where the variables are. They are taken away: children are not the service.

    Attributes:
        watchdog_s: We have to say `alive` at least so often; 0: nobody waits for it.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        name, limit, pid = (environment.pop(key, "") for key in VARIABLES)
        ours = not pid or pid == str(os.getpid())
        self.watchdog_s = int(limit) / 1e6 if name and ours and limit.isdigit() else 0.0
        # A name of the abstract namespace begins with a zero byte, written "@".
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._status = ""

    def ready(self) -> None:
        """All that was there before is back, and new work is taken (also after `reloading`)."""
        self._say("READY=1")

    def reloading(self) -> None:
        """A new fleet is being started; `ready` follows, whatever comes of it."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Nothing more is taken."""
        self._say("STOPPING=1")

    def alive(self) -> None:
        """The loop went round."""
        if self.watchdog_s:
            self._say("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Starting or stopping gets on, and takes at most so much longer before we say more."""
        self._say(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def status(self, text: str) -> None:
        """One line for people, when it is another one than before."""
        if text != self._status:
            self._status = text
            self._say(f"STATUS={text}")

    def close(self) -> None:
        """Say no more."""
        self._address = ""
        self._socket.close()

    def _say(self, *lines: str) -> None:
        if self._address:
            with suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)
