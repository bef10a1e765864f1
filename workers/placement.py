"""Placement: on which core an agent runs. Physical only: no bit of a run depends on it.

Waking a core that sleeps costs more than a small turn. While one agent's turn is all that goes on,
the supervisor sleeps until that turn is over, so the agent runs best on the core that has just
become free: the supervisor's own, which is awake and has the records in its caches. As soon as
there is more to do at a time, every agent may run anywhere again.
"""

import ctypes
import os

from lockstep.workers.seat import Seat


class Placement:
    """Where agents were put, and back. One writer: the supervisor.

    Args:
        seats: By index.
    """

    def __init__(self, seats: list[Seat]) -> None:
        self._seats = seats
        self._core = -1  # Of the supervisor while it keeps to one.
        self._bound: dict[int, None] = {}  # Agents that keep to it, too.
        # What a person allowed this run to use (taskset, a container) stays the bound.
        self._everywhere = frozenset(os.sched_getaffinity(0)) if CORE is not None else frozenset()

    def alone(self, agent: int) -> None:
        """The agent is about to be woken, and nothing else goes on until its turn is over."""
        if agent in self._bound or len(self._everywhere) < 2:
            return
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
