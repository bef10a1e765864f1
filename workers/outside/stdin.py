"""Standard input as a source: lines of a descriptor that is shared with whoever started the run."""

import os
import stat
from collections.abc import Callable

from lockstep.workers.loop import Loop, Timer
from lockstep.workers.outside.feed import Feed
from lockstep.workers.outside.line_buffer import TOO_LONG, LineBuffer

READ_BYTES = 1 << 16
NOTES_MAX = 10  # Refused lines that are told; the rest is counted.


class StdinSource:
    """Lines of a descriptor, until its end."""

    def __init__(
        self, loop: Loop, feed: Feed, descriptor: int, note: Callable[[str], None]
    ) -> None:
        """Begin to read.

        Args:
            loop: Of the supervisor.
            feed: Where lines go.
            descriptor: To read, owned from now on; -1: there is none, so it has ended.
            note: Told of lines that are refused.
        """
        self.refused = 0
        self._loop, self._feed, self._note = loop, feed, note
        self._lines = LineBuffer(feed.line_bytes_max)
        self._number = 0
        self._timer: Timer | None = None  # A descriptor that is always ready cannot be watched.
        self._descriptor = -1 if descriptor < 0 else nonblocking(descriptor)
        if self._descriptor < 0:
            feed.close()
        else:
            self._watch()

    def resume(self) -> None:
        """There may be room again."""
        if self._descriptor >= 0 and not self._watched() and self._feed.may_read():
            self._go_on()

    def close(self) -> None:
        """Read no more."""
        if self._descriptor >= 0:
            self._unwatch()
            os.close(self._descriptor)
            self._descriptor = -1

    def end(self) -> None:
        """The run is over."""
        self.close()

    def _ready(self) -> None:
        self._timer = None
        if self._descriptor < 0:
            return
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            self._go_on()
            return
        except OSError as error:
            self._note(f"[sources.{self._feed.source.name}] standard input: {error.strerror}; "
                       "nothing more is read")  # fmt: skip
            data = b""
        if data:
            self._lines.feed(data)
            self._go_on()
        else:
            self._hear(self._lines.rest())
            self._feed.close()
            self.close()

    def _go_on(self) -> None:
        while self._feed.may_read():
            line = self._lines.next()
            if line is None:
                if not self._watched():
                    self._watch()
                return
            self._hear(line)
        self._unwatch()

    def _hear(self, line: bytes | object | None) -> None:
        self._number += line is not None
        if line is TOO_LONG:
            self._refuse(f"a line of more than {self._feed.line_bytes_max} bytes")
        elif isinstance(line, bytes) and (line.strip() or self._feed.source.to):
            try:
                self._feed.bring(line if self._feed.source.to else line.strip())
            except ValueError as error:
                self._refuse(str(error))

    def _refuse(self, why: str) -> None:
        self.refused += 1
        if self.refused <= NOTES_MAX:
            name = self._feed.source.name
            self._note(f"[sources.{name}] standard input:{self._number}: {why}; the line is "
                       "refused")  # fmt: skip

    def _watch(self) -> None:
        try:
            self._loop.watch(self._descriptor, self._ready)
        except PermissionError:  # A regular file.
            self._timer = self._loop.after(0, self._ready)

    def _watched(self) -> bool:
        return self._timer is not None or self._loop.watches(self._descriptor)

    def _unwatch(self) -> None:
        self._loop.forget(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def nonblocking(descriptor: int) -> int:
    """A descriptor of the same, that never blocks; the given one is closed then.

    Setting the flag would set it for whoever shares the descriptor: a shell, say. So a pipe or a
    terminal is opened again. A regular file never blocks, and has one place for all to read at.
    """
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return descriptor
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        again = os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        return descriptor  # Another user's terminal: it is read when it says that it is ready.
    os.close(descriptor)
    return again
