"""Signals of the supervisor: handlers only count; whoever waits looks."""

import os
import signal


class Signals:
    """SIGINT, SIGTERM and SIGHUP, counted.

    Attributes:
        count: Signals so far.
        descriptor: Readable when one came: for a poll.
    """

    def __init__(self) -> None:
        self.count = 0
        self.descriptor, self._writing = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writing, False)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._count)

    def _count(self, _number: int, _frame: object) -> None:
        self.count += 1

    def clear(self) -> None:
        """Empty the wake-up pipe."""
        self.arrived()

    def arrived(self) -> bytes:
        """Numbers of the signals since the last call, in order."""
        numbers = b""
        try:
            while data := os.read(self.descriptor, 512):
                numbers += data
        except BlockingIOError:
            pass
        return numbers
