"""Placement: on which core an agent runs. Physical only: no bit of a run depends on it.

Waking a core that sleeps costs more than a small turn. While one agent's turn is all that goes on,
the supervisor sleeps until that turn is over, so the agent runs best on the core that has just
become free: the supervisor's own, which is awake and has the records in its caches. As soon as
there is more to do at a time, every agent may run anywhere again; likewise when a turn took so long
that it gains nothing, or that the core is somebody else's, too.
"""

import ctypes
import os
import time

from lockstep.workers.seat import Seat

SLOW_S = 0.001  # A lone turn that takes longer is better off where the kernel puts it.
REST_WAKES = 16  # So many are left to the kernel then.


class Placement:
    """Where agents were put, and back. One writer: the supervisor.

    Args:
        seats: By index.
    """

    def __init__(self, seats: list[Seat]) -> None:
        self._seats = seats
        self._woken_s = 0.0  # When a lone turn began last.
        self._rest = 0  # Lone turns that are left to the kernel.
        self._core = -1  # Of the supervisor while it keeps to one.
        self._bound: dict[int, None] = {}  # Agents that keep to it, too.
        # What a person allowed this run to use (taskset, a container) stays the bound.
        self._everywhere = frozenset(os.sched_getaffinity(0)) if CORE is not None else frozenset()

    def alone(self, agent: int) -> None:
        """The agent is about to be woken, and nothing else goes on until its turn is over."""
        if len(self._everywhere) < 2:
            return
        before, self._woken_s = self._woken_s, time.monotonic()
        if self._woken_s - before > SLOW_S:
            self.together()
            self._rest = REST_WAKES
        if self._rest:
            self._rest -= 1
        elif agent not in self._bound:
            self._bind(agent)

    def _bind(self, agent: int) -> None:
        if self._core < 0:
            assert CORE is not None
            # Or a balancing kernel takes the supervisor to the core that idles.
            core = CORE()
            if not _put(0, frozenset((core,))):
                return
            self._core = core
        child = self._seats[agent].child
        # A pid of ours that has not been reaped is nobody else's.
        if child is not None and _put(child.pid, frozenset((self._core,))):
            self._bound[agent] = None

    def together(self) -> None:
        """More than one goes on: whoever was put somewhere may run anywhere again."""
        if self._core < 0:
            return
        children = [self._seats[agent].child for agent in self._bound]
        for pid in [0, *(child.pid for child in children if child is not None)]:
            _put(pid, self._everywhere)
        self._core, self._bound = -1, {}


def _put(pid: int, cores: frozenset[int]) -> bool:
    try:
        os.sched_setaffinity(pid, cores)
    except OSError:
        return False  # Not allowed here, or it has just ended: then it runs where it runs.
    return True


def _core() -> "ctypes._NamedFuncPointer | None":
    """C's ``sched_getcpu``; None where there is no such thing."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)


CORE = _core()
