"""Live: a text redrawn on a terminal, until what it shows is over or a person has seen enough."""

import os
import sys
import time
from collections.abc import Callable

from lockstep.cli import screen

FRAME_S = 1.0
_BEGIN, _END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # A screen of its own, no cursor.


def show(frame: Callable[[], tuple[str, bool]]) -> None:
    """Draw frames, one a second; the last one stays when it is over.

    Args:
        frame: The text, escaped, and whether it can still change.
    """
    text, alive = frame()
    _write(_BEGIN)
    try:
        while alive:
            _write(f"\x1b[H{fitted(text, *_size())}\x1b[J")
            time.sleep(FRAME_S)
            text, alive = frame()
    except KeyboardInterrupt:
        pass
    finally:
        _write(_END)
    screen.say(text)


def fitted(text: str, columns: int, rows: int) -> str:
    """As much as there is room for, and how much there is not.

    The last column stays free: some terminals wrap as soon as it is written.
    """
    lines = text.splitlines()
    if len(lines) > rows:
        lines = [*lines[: rows - 1], f"... {len(lines) - rows + 1} more lines"]
    return "\n".join(f"{line[: columns - 1]}\x1b[K" for line in lines)


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return 80, 24
    return (size.columns or 80), (size.lines or 24)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
