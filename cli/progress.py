"""The progress line: one line of a terminal, redrawn, and gone at the end.

Nothing is written when standard error is not a terminal. What does not fit is left out, the least
needed first, so that 40 columns show what matters.
"""

import os
import sys
from typing import Any, TextIO

from lockstep.cli import screen

COLUMNS_DEFAULT = 80
BAR_MIN, BAR_MAX = 8, 24  # Characters between the brackets.
SMOOTHING = 0.3  # Share of the newest rate in the one that is shown.


class Progress:
    """Draws what the supervisor reports.

    Attributes:
        active: Whether anything is drawn at all.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self.active = screen.terminal(self._stream)
        self._drawn = False
        self._rate = Rate()

    def update(self, value: dict[str, Any]) -> None:
        """Redraw with a progress report (`workers.supervisor.Supervisor._progress`)."""
        if not self.active:
            return
        rate = self._rate.update(value.get("elapsed_s", 0.0), value.get("tokens", 0))
        # The last column stays free: some terminals wrap as soon as it is written.
        text = render(value, rate, columns(self._stream) - 1)
        self._write("\r" + screen.paint(text, "dim", self._stream) + "\x1b[K")
        self._drawn = True

    def clear(self) -> None:
        """Take the line away, for a message or at the end."""
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Making:
    """Says of the files of a profile which is made, and how far it is. Nothing, off a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._active = screen.terminal(self._stream)
        self._drawn = ""

    def __call__(self, what: str, share: float) -> None:
        """``share``: of that one, from 0 to 1."""
        text = f"making the profile: {what} {share:.0%}"[: columns(self._stream) - 1]
        if self._active and text != self._drawn:
            self._drawn = text
            self._write("\r" + screen.paint(text, "dim", self._stream) + "\x1b[K")

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Rate:
    """Tokens per second, from differences between reports."""

    def __init__(self) -> None:
        self._at_s = 0.0
        self._tokens = 0
        self._value: float | None = None

    def update(self, elapsed_s: float, tokens: int) -> float:
        """The smoothed rate after a report."""
        past_s = elapsed_s - self._at_s
        if past_s > 0:
            now = max(tokens - self._tokens, 0) / past_s
            old = self._value
            self._value = now if old is None else old + SMOOTHING * (now - old)
            self._at_s, self._tokens = elapsed_s, tokens
        return self.value

    @property
    def value(self) -> float:
        """The smoothed rate as it was last."""
        return self._value or 0.0


def render(value: dict[str, Any], rate: float, width: int) -> str:
    """The line, ``width`` characters at most."""
    done, items = int(value.get("items_done", 0)), int(value.get("items", 0))
    count = f"{done}/{items}" if items else f"turn {value.get('turns', 0)}"
    parts = [
        count,
        f"{rate:.0f} tok/s",
        clock(float(value.get("elapsed_s", 0.0))),
        f"waits for {screen.escape(value['waits_for'])}" if value.get("waits_for") else "",
        f"{value.get('requests_open', 0)} open",
        f"step {value.get('steps', 0)}",
    ]  # In order of need.
    line = ""
    bar_min = BAR_MIN + 3 if items else 0
    for part in filter(None, parts):
        longer = f"{line}  {part}" if line else part
        if len(longer) + bar_min > width:
            continue
        line = longer
    if items and width >= len(line) + bar_min:
        line = f"{bar(done / items, min(width - len(line) - 3, BAR_MAX))} {line}"
    return (line or count)[: max(width, 0)]


def columns(stream: TextIO) -> int:
    """Width of the terminal behind a stream."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS_DEFAULT
    except (OSError, ValueError):
        return COLUMNS_DEFAULT


def bar(share: float, width: int) -> str:
    """A bar with ``width`` characters between its brackets."""
    full = int(min(max(share, 0.0), 1.0) * width)
    return f"[{'#' * full}{'-' * (width - full)}]"


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
