"""Overdue: who is alive but silent. It has work, says nothing and uses no CPU: it is killed.

A guest in an endless loop burns fuel and is never overdue; its fuel ends it. A process that is
stopped, or waits for something that never comes, does neither. The looks are counted, not the
time between them: a whole run that was suspended for an hour finds nobody overdue.
"""

from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import NamedTuple

from lockstep.workers.loop import Loop, Timer

LOOKS = 4  # That found nothing new, one after the other, `overdue_s` / LOOKS apart.


class Suspect(NamedTuple):
    """A process that has work.

    Attributes:
        key: Of it among all.
        pid: Its process; another one starts anew.
        said: Changes whenever something came from it.
        overdue: Called with how it was silent, for people: kills it.
    """

    key: Hashable
    pid: int
    said: int
    overdue: Callable[[str], None]


class _Seen(NamedTuple):
    pid: int
    said: int
    cpu: int | None  # None: not asked yet, or nobody can tell.
    looks: int  # That found all this unchanged.


def cpu_ticks(pid: int) -> int | None:
    """CPU time that all threads of a process have used so far; None where nobody can tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[11]) + int(fields[12])  # utime and stime.


class Overdue:
    """Looks now and then at who has work; not at all while nobody has.

    Args:
        loop: Whose timers are used.
        overdue_s: Silence of so long is too long; 0: nothing ever is.
        cpu: As `cpu_ticks`.

    Attributes:
        idle: No look is due: whoever gives work calls `arm` then.
    """

    def __init__(
        self, loop: Loop, overdue_s: float, cpu: Callable[[int], int | None] = cpu_ticks
    ) -> None:
        self._loop = loop
        self._overdue_s = overdue_s
        self._cpu = cpu
        self._sources: list[Callable[[], Iterable[Suspect]]] = []
        self._seen: dict[Hashable, _Seen] = {}
        self._timer: Timer | None = None
        self.idle = overdue_s > 0

    def watch(self, suspects: Callable[[], Iterable[Suspect]]) -> None:
        """Ask this, too, at each look: who has work."""
        self._sources.append(suspects)

    def arm(self) -> None:
        """Somebody has work: look, later."""
        if self.idle:
            self.idle = False
            self._timer = self._loop.after(self._overdue_s / LOOKS, self._look)

    def _look(self) -> None:
        before, self._seen = self._seen, {}
        for suspects in self._sources:
            for suspect in suspects():
                self._seen[suspect.key] = self._judged(suspect, before.get(suspect.key))
        self.idle = True
        if self._seen:
            self.arm()

    def _judged(self, suspect: Suspect, before: _Seen | None) -> _Seen:
        if before is None or (before.pid, before.said) != (suspect.pid, suspect.said):
            return _Seen(suspect.pid, suspect.said, None, 0)
        # Asked only of who has been silent: a busy fleet costs no look into /proc.
        cpu = self._cpu(suspect.pid)
        if cpu != before.cpu:
            return _Seen(suspect.pid, suspect.said, cpu, 0)
        looks = before.looks + 1
        if looks == LOOKS:
            suspect.overdue(f"said nothing and used no CPU for {self._overdue_s:g} s")
        return _Seen(suspect.pid, suspect.said, cpu, looks)
