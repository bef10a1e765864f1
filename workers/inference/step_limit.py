"""The limit of a step: CPU time, of all threads of this process, that ends the process.

The kernel's timer counts every thread, also those that do not work on the step. What such a thread
has used it gives back. So neither a slow nor a stopped machine ends a good step, nor does what
goes on beside it.
"""

import signal
import threading

_lock = (
    threading.Lock()
)  # Between looking at the timer, which a process has one of, and setting it.


def begin(limit_s: float) -> None:
    """A step begins. The timer's default action ends the process, in native code as well.

    Args:
        limit_s: CPU time; 0: no limit.
    """
    with _lock:
        signal.setitimer(signal.ITIMER_PROF, limit_s)


def end() -> None:
    """It is over."""
    begin(0)


def give_back(used_s: float) -> None:
    """So much of what was used was not the step's."""
    with _lock:
        left_s, _ = signal.getitimer(signal.ITIMER_PROF)
        if left_s:
            signal.setitimer(signal.ITIMER_PROF, left_s + used_s)
