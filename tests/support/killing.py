"""Killing: a real supervisor whose processes die at a named point, at its n-th passing.

``python -P -m killing PLAN`` with a job on standard input, as any supervisor gets it. The loop, the
processes, rings, journal and output are those of every run; only the functions where a point lies
are wrapped (`points`), here and in what is forked from here. So the product has no switch for it.

A plan has stages. The first that is not over yet counts passings of its point in its process; at
the n-th a mark is made (a file, O_EXCL, before the deed), which ends the stage for every process
of every life of the run: the process that is started again does not die again, unless the next
stage says so.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import interrupting

SUPPORT = Path(__file__).resolve().parent
# The others have the names that they are forked under: "inference", "agent NAME", ...
SUPERVISOR = "supervisor"
# Kept here, since `points` wraps some of them.
_open, _write, _close, _exists = os.open, os.write, os.close, os.path.exists


@dataclass(frozen=True)
class Stage:
    """One deed.

    Attributes:
        point: Its name in `points`.
        process: Whose passings count; empty: those of whoever passes (each counts for itself).
        nth: At which of its passings since the stage began, from 1.
        how: "kill" and "stop" are signals to the process itself, "children" kills all of its,
            "group" everybody in the supervisor's process group, "storm" is a hundred requests to
            stop, "accident" an exception that no guest can cause, "interrupt" is Ctrl-C at the
            command line (interrupting.py).
    """

    point: str
    process: str = ""
    nth: int = 1
    how: str = "kill"


@dataclass(frozen=True)
class Plan:
    """What happens to a run.

    Attributes:
        folder: Of the marks; it exists.
        stages: One after the other, over all lives of the run.
        census: File that each passing adds a line to; empty: none.
        unarmed: Children do not die with the supervisor: the mutant without the death signal.
    """

    folder: str
    stages: tuple[Stage, ...] = ()
    census: str = ""
    unarmed: bool = False

    def to_json(self) -> str:
        """One argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """What `to_json` made."""
        values = json.loads(text)
        values["stages"] = tuple(Stage(**stage) for stage in values["stages"])
        return cls(**values)

    def mark(self, stage: int) -> str:
        """Path of a stage's mark."""
        return f"{self.folder}/{stage}"

    @property
    def done(self) -> int:
        """Stages that are over."""
        return sum(_exists(self.mark(stage)) for stage in range(len(self.stages)))


class Killer:
    """Counts passings in this process and does what the plan says.

    Attributes:
        process: Which one this is.
        armed: Nothing counts before a supervisor starts its agents: there is no run yet.
        ended: What an agent has published last had an END.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.process = SUPERVISOR
        self.armed = False
        self.ended = False
        self._stage = 0  # That was looked at last.
        self._passed = 0
        self._flag = Path(plan.folder, "armed")  # For who was forked before.
        self._flag.unlink(missing_ok=True)

    def expects(self, point: str) -> bool:
        """Whether the point is the one that counts now."""
        stage = self._now()
        return stage is not None and stage.point == point

    def passing(self, point: str) -> None:
        """This process is at a point."""
        early = point.startswith(("resuming: ", "starting: "))
        if not (early or self.armed or self._flag.exists()):
            return
        if self.plan.census:
            self._note(point)
        stage = self._now()
        if stage is None or stage.point != point or stage.process not in ("", self.process):
            return
        self._passed += 1
        if self._passed >= stage.nth and self._mark():
            self._do(stage.how)

    def arm(self) -> None:
        """The agents are started now."""
        self.armed = True
        self._flag.touch()

    def be(self, process: str) -> None:
        """This is a child now."""
        self.process, self._passed = process, 0

    def _now(self) -> Stage | None:
        while self._stage < len(self.plan.stages) and _exists(self.plan.mark(self._stage)):
            self._stage, self._passed = self._stage + 1, 0
        return self.plan.stages[self._stage] if self._stage < len(self.plan.stages) else None

    def _mark(self) -> bool:
        """Whether this process is the one that ends the stage."""
        try:
            descriptor = _open(self.plan.mark(self._stage), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        _write(descriptor, f"{os.getpid()} {self.process}\n".encode())
        _close(descriptor)
        return True

    def _note(self, point: str) -> None:
        # Opened each time: a child closes what is not its own, and the number is another file's.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = _open(self.plan.census, flags, 0o600)
        _write(descriptor, f"{point}\t{self.process}\n".encode())
        _close(descriptor)

    def _do(self, how: str) -> None:
        me = os.getpid()
        if how == "accident":
            raise MemoryError("told to fail")
        if how == "interrupt":
            interrupting.interrupt(self.plan.folder)
        elif how == "group":
            os.killpg(os.getpgrp(), signal.SIGKILL)
        elif how == "children":
            for child in Path(f"/proc/self/task/{me}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)  # Ours and not reaped: nobody else's pid.
        elif how == "storm":
            for number in range(100):
                os.kill(me, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[number % 3])
        else:
            os.kill(me, signal.SIGSTOP if how == "stop" else signal.SIGKILL)


class Census:
    """How often each point was passed in a run that nobody disturbed."""

    def __init__(self, path: str) -> None:
        lines = Path(path).read_text().splitlines()
        self._counts = Counter(tuple(line.split("\t")) for line in lines)

    @property
    def points(self) -> set[str]:
        """That were passed at all."""
        return {point for point, _ in self._counts}

    def choose(self, point: str, seed: int, how: str = "kill") -> Stage:
        """A passing of a point, by a seed; not of the last ones.

        How often some points are passed depends on the machine (waits, drains, writes), so the
        last passings of this run are not there in every run.
        """
        chance = random.Random(f"{point} {seed}")
        processes = sorted((p, n) for (at, p), n in self._counts.items() if at == point)
        process, count = chance.choice(processes)
        return Stage(point, process, 1 + chance.randrange(max(1, count * 2 // 3)), how)


@contextmanager
def under(plan: Plan) -> Iterator[list[int]]:
    """What is launched meanwhile is launched under a plan. Gives the supervisors' pids."""
    from lockstep.workers import launch

    pids: list[int] = []

    def popen(command: list[str], **more: Any) -> subprocess.Popen[bytes]:
        assert command[-1] == "lockstep.workers.supervisor", command
        more["env"]["PYTHONPATH"] = str(SUPPORT)
        process = subprocess.Popen([*command[:-1], "killing", plan.to_json()], **more)
        pids.append(process.pid)
        return process

    changed: Any = launch
    before = changed.subprocess
    changed.subprocess = SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE)
    try:
        yield pids
    finally:
        changed.subprocess = before


def main() -> int:
    """Entry of the process."""
    import points

    from lockstep.workers import supervisor

    plan = Plan.from_json(sys.argv[1])
    points.install(Killer(plan))
    interrupting.tell(plan.folder)
    if plan.unarmed:
        points.leave_out_the_death_signal()
    return supervisor.main()


if __name__ == "__main__":
    sys.exit(main())
