"""Live: a table redrawn on a terminal, until what it shows is over or a person has seen enough."""

import time
from collections.abc import Callable
from typing import Any

from lockstep.cli.terminal import Terminal
from lockstep.cli.watching import Watching

FRAME_S = 1.0
REST = 20  # Looking takes no more than this part of a core's time, at a thousand agents, too.


def show(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Draw what is there, once a second and at every key.

    Args:
        look: What is shown (`top.look`); it is over when its state is no longer "running".

    Returns:
        What was seen last.
    """
    found, rest_s = look(), FRAME_S  # The first one also loads what it needs.
    if found["state"] != "running":
        return found
    watching = Watching()
    with Terminal() as terminal:
        try:
            while found["state"] == "running":
                now_s = time.monotonic()
                watching.take(found, now_s)
                if not _frame(terminal, watching, now_s + rest_s):
                    break
                found, rest_s = _look(look)
        except KeyboardInterrupt:
            pass
    return found


def _look(look: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """What is there, and seconds until the next look."""
    began_s = time.process_time()
    found = look()
    return found, max(FRAME_S, (time.process_time() - began_s) * REST)


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
