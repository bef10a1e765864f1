"""Lifecycle: what becomes of a process that ought to live, as a table, and how often it may die.

An accident is never anything logical (rule 10): whoever dies by one is started again and repeats
what it did. Only wall time and the operating system decide here, so no bit of a run may depend
on it; what may is whether the run goes on.
"""

from collections import deque

from lockstep.engine.errors import LockstepBug
from lockstep.engine.fleet import Recovery

# States.
STARTING = "starting"  # Forked for the first time; not ready yet.
RUNNING = "running"  # In the present: its turn runs, or it waits to be woken.
KILLING = "killing"  # Ours to end: SIGKILL was sent, its end not seen yet.
BACKOFF = "backoff"  # There is no process, and the next one has to wait.
RECOVERING = "recovering"  # Forked again; it repeats what is recorded.
ENDED = "ended"  # By its own doing, for good: its process leaves, or is gone.
RUN_STOPPED = "run stopped"  # Resumable; a person must look.

# Events. "repeat": forked to repeat what an earlier process did. "broken": what it sent is not what
# it may send, or it said that it leaves by an accident. "refused": there is no room for a process.
# "elsewhere": the record goes on on another provider, so it is ended and started anew.
# "buried": the run has no more use for it.
EVENTS = (
    "ready", "repeat", "exit", "overdue", "broken", "timer", "refused", "exhausted", "caught_up",
    "ended", "buried", "elsewhere",
)  # fmt: skip
STATES = (STARTING, RUNNING, KILLING, BACKOFF, RECOVERING, ENDED, RUN_STOPPED)

# Every pair that is not here cannot come, and is a bug of ours.
MOVES = {
    (STARTING, "ready"): RUNNING,  # Its module is loaded, and it is confined.
    (STARTING, "repeat"): RECOVERING,  # The run goes on: an earlier one did what it has to do.
    (STARTING, "exit"): BACKOFF,  # Died before it was ready: maybe transient.
    (STARTING, "overdue"): KILLING,
    (STARTING, "broken"): KILLING,
    (STARTING, "buried"): ENDED,
    (RUNNING, "exit"): BACKOFF,  # An accident: it repeats its turns, nobody notices.
    (RUNNING, "overdue"): KILLING,  # SIGKILL: Python's handlers do not run inside guest code.
    (RUNNING, "broken"): KILLING,
    (RUNNING, "elsewhere"): KILLING,
    (RUNNING, "ended"): ENDED,  # Its guest returned or failed: that is logical, and stays.
    (RUNNING, "buried"): ENDED,
    (KILLING, "exit"): BACKOFF,
    (KILLING, "broken"): KILLING,  # The first cause is the one that is told.
    (KILLING, "ended"): ENDED,  # Its last END had come before the signal reached it.
    (KILLING, "buried"): ENDED,
    (BACKOFF, "timer"): RECOVERING,
    (BACKOFF, "exhausted"): RUN_STOPPED,
    (BACKOFF, "buried"): ENDED,  # Its last turn had come before it died.
    (RECOVERING, "refused"): BACKOFF,  # The kernel has no room for one more process now.
    (RECOVERING, "exit"): BACKOFF,
    (RECOVERING, "overdue"): KILLING,
    (RECOVERING, "broken"): KILLING,
    (RECOVERING, "caught_up"): RUNNING,
    (RECOVERING, "buried"): ENDED,
    (ENDED, "exit"): ENDED,
    (ENDED, "buried"): ENDED,
}

BACKOFF_FIRST_S = 0.1  # Of the second restart within the window; the first one is at once.
BACKOFF_S_MAX = 5.0


class Lifecycle:
    """One process's state.

    Attributes:
        state: One of `STATES`.
    """

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = STARTING

    def on(self, event: str) -> str:
        """The state that the event leads to.

        Raises:
            LockstepBug: it cannot come in this state.
        """
        after = MOVES.get((self.state, event))
        if after is None:
            raise LockstepBug(f"a process that is {self.state!r} cannot get {event!r}")
        self.state = after
        return after


class Restarts:
    """How often one process was started again lately, and when it may be the next time.

    Args:
        limits: `restarts_max` within `window_s`.

    Attributes:
        total: All of them.
    """

    __slots__ = ("_limits", "_times_s", "total")

    def __init__(self, limits: Recovery) -> None:
        self._limits = limits
        self._times_s: deque[float] = deque()
        self.total = 0

    def next(self, now_s: float) -> float | None:
        """It died: seconds to wait before it is started again; None: it has died too often.

        Args:
            now_s: Of the monotonic clock.
        """
        while self._times_s and now_s - self._times_s[0] >= self._limits.window_s:
            self._times_s.popleft()
        before = len(self._times_s)
        if before >= self._limits.restarts_max:
            return None
        self._times_s.append(now_s)
        self.total += 1
        return backoff_s(before)

    def forget(self) -> None:
        """What it died of is over: count from here. `total` stays."""
        self._times_s.clear()

    def exhausted(self) -> str:
        """Why it is not started once more, for people."""
        limits = self._limits
        return f"[recovery] restarts_max = {limits.restarts_max} within {limits.window_s} s"


def backoff_s(before: int) -> float:
    """Seconds to wait after so many restarts lately: 0, 0.1, 0.2, 0.4, ... `BACKOFF_S_MAX`."""
    if before == 0:
        return 0.0
    return min(BACKOFF_FIRST_S * 2.0 ** min(before - 1, 20), BACKOFF_S_MAX)
