"""What the supervisor tells its parent: JSON lines on standard output, one object each.

{"run": FOLDER}  {"note": TEXT}  {"progress": {...}}  {"summary": {...}}  {"error": {...}}
"""

import json
import os
import select
import time
from typing import Any

from lockstep.workers.signals import Signals

PROGRESS_S = 0.1


class Reporter:
    """Writes lines. A parent that does not read misses progress, and slows nothing."""

    def __init__(self, descriptor: int, signals: Signals) -> None:
        self._descriptor = descriptor
        self._signals = signals
        os.set_blocking(descriptor, False)
        self._next_s = 0.0
        self._started_s = time.monotonic()

    def say(self, what: str, value: Any) -> None:
        """A line that has to arrive: waits for a slow parent.

        It is given up when the parent is dead, or at the second signal: then somebody wants this
        process gone, and what the line says is in the run folder.
        """
        data = json.dumps({what: value}).encode() + b"\n"
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.register(self._signals.descriptor, select.POLLIN)
        while data and self._signals.count < 2:
            poll.poll()
            self._signals.clear()
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                continue
            except OSError:
                return

    def progress(self, value: dict[str, Any]) -> None:
        """A line that may be dropped. Shorter than PIPE_BUF, so it is written whole or not."""
        line = json.dumps({"progress": {**value, "elapsed_s": round(self.elapsed_s(), 3)}})
        try:
            os.write(self._descriptor, line.encode() + b"\n")
        except OSError:
            pass

    def progress_due(self) -> bool:
        """Whether it is time for the next progress line. For display only."""
        now = time.monotonic()
        if now < self._next_s:
            return False
        self._next_s = now + PROGRESS_S
        return True

    def elapsed_s(self) -> float:
        """Seconds since the process began."""
        return time.monotonic() - self._started_s
