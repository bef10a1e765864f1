"""Live: a table redrawn on a terminal, until what it shows is over or a person has seen enough."""

import time
from collections.abc import Callable
from typing import Any

from lockstep.cli.terminal import Terminal
from lockstep.cli.watching import Watching

FRAME_S = 1.0


def show(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Draw what is there, once a second and at every key.

    Args:
        look: What is shown (`top.look`); it is over when its state is no longer "running".

    Returns:
        What was seen last.
    """
    found = look()
    if found["state"] != "running":
        return found
    watching = Watching()
    with Terminal() as terminal:
        try:
            while found["state"] == "running":
                looked_s = time.monotonic()
                watching.take(found, looked_s)
                if not _frame(terminal, watching, looked_s + FRAME_S):
                    break
                found = look()
        except KeyboardInterrupt:
            pass
    return found


def _frame(terminal: Terminal, watching: Watching, until_s: float) -> bool:
    """Draw and take keys until it is time to look again. Returns whether to go on."""
    while True:
        terminal.draw(watching.render(*terminal.size(), keys=terminal.has_keys))
        rest_s = until_s - time.monotonic()
        if rest_s <= 0 and not watching.paused:
            return True
        for key in terminal.keys(rest_s if not watching.paused else FRAME_S):
            if not watching.press(key):
                return False
