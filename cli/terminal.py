"""A terminal taken for a while: a screen of its own, keys as they are pressed, and all of it back.

Whatever ends us gives it back as it was: the end of the ``with``, an error, SIGINT, SIGTERM,
SIGHUP and SIGQUIT; Ctrl-Z gives it back until we go on. (Nothing can be done about SIGKILL; `reset`
helps then.)
"""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from lockstep.cli.keys import keys_of

BEGIN, END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # A screen of its own, no cursor.
READ_BYTES = 4096
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Terminal:
    """Standard output's terminal, and standard input's keys if that is a terminal of ours.

    Attributes:
        has_keys: Whether there are keys.
    """

    def __enter__(self) -> "Terminal":
        self.has_keys = _ours(0)
        self._taken = self._stopping = False
        self._waking, self._wake = os.pipe()
        for end in (self._waking, self._wake):
            os.set_blocking(end, False)
        self._wakeup = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        handlers = {
            signal.SIGWINCH: _nothing,  # It only wakes us: the size is asked for anyway.
            signal.SIGTSTP: self._stop,
            signal.SIGQUIT: _interrupt,
        }
        self._before = {number: signal.signal(number, to) for number, to in handlers.items()}
        try:
            self._take()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def draw(self, lines: list[str]) -> None:
        """Show lines, each short enough."""
        text = "\n".join(f"{line}\x1b[K" for line in lines)
        _write(f"\x1b[H{text}\x1b[J")

    def keys(self, timeout_s: float) -> Iterator[str]:
        """Keys that were pressed, waiting for the first; also ends when the size is another.

        Here alone Ctrl-Z takes effect: in the middle of a write nothing else can be written.
        """
        watched = [self._waking, *([0] if self.has_keys else [])]
        ready, _, _ = select.select(watched, [], [], max(timeout_s, 0.0))
        if self._waking in ready:
            os.read(self._waking, READ_BYTES)
        if self._stopping:
            self._suspend()  # What was typed meanwhile was not for us.
        elif 0 in ready:
            data = os.read(0, READ_BYTES)
            self.has_keys = bool(data)  # Nothing: it hung up, and would be ready for ever.
            yield from keys_of(data)

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            size = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return 80, 24
        return (size.columns or 80), (size.lines or 24)

    def _take(self) -> None:
        if self.has_keys:
            self._mode = termios.tcgetattr(0)
        self._taken = True  # Before the first change: an interrupt may come behind it.
        if self.has_keys:
            tty.setcbreak(0, termios.TCSANOW)
        _write(BEGIN)

    def _give_back(self) -> None:
        if not self._taken:
            return
        _write(END)
        if self.has_keys:
            termios.tcsetattr(0, termios.TCSADRAIN, self._mode)
        self._taken = False

    def _leave(self) -> None:
        # A second signal must not stop us half way.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            self._give_back()
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._waking)
            os.close(self._wake)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _suspend(self) -> None:
        """Give the terminal back, stop, and take it again when we go on."""
        self._stopping = False
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._take()


def _ours(descriptor: int) -> bool:
    """Whether a descriptor is a terminal and we are in its foreground: others it stops."""
    try:
        return os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def _interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
