"""SIGINT, SIGTERM and SIGHUP as KeyboardInterrupt, one at a time.

A storm of signals must not interrupt the handling of the first one: so two interrupts are at
least `GAP_S` apart, and a signal that comes too early is remembered for then. The first lets a
run stop cleanly and the second ends it at once (`workers.launch`); a third has nothing left to say,
and could only fall into the middle of the end.
"""

import signal
import time

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GAP_S = 0.1
MOST = 2

_next_s = 0.0  # No KeyboardInterrupt before this time of the monotonic clock.
_left = 0  # So many may still come.


def listen() -> None:
    """Take the signals. One that is ignored (nohup, a shell's background job) stays ignored."""
    global _left
    _left = MOST
    signal.signal(signal.SIGALRM, _arrived)
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _arrived)


def block() -> None:
    """At the end: a signal that comes now must not turn it into a traceback.

    Ignored, not masked: a mask holds for one thread, and numpy may have started others; and an
    ending interpreter gives back the default of every handler but this one.
    """
    global _left
    _left = 0  # First: an interrupt in the middle of this would leave half of them as they are.
    for number in (*STOPPING, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def _arrived(_number: int, _frame: object) -> None:
    global _left, _next_s
    if not _left:
        return
    early_s = _next_s - time.monotonic()
    if early_s > 0:
        signal.setitimer(signal.ITIMER_REAL, early_s)
        return
    _next_s = time.monotonic() + GAP_S
    _left -= 1
    raise KeyboardInterrupt
