"""Lives: a run carried to its end over as many lives as it takes, and what has to hold then."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fleets
import numpy as np
from killing import Plan, under

from lockstep.engine.errors import RunStopped
from lockstep.engine.journal import format as journal_format
from lockstep.engine.record import Kind, decode
from lockstep.engine.wire import RESULT_SLOT, FromEngine
from lockstep.shm import sweep
from lockstep.workers import resume, verify
from lockstep.workers.identity import read_journal
from lockstep.workers.job import Job
from lockstep.workers.launch import Interrupted, Listener, launch

WATCHDOG_S = 120  # Ends what hangs; nothing is measured by it.


@dataclass
class Lives:
    """A run that came to its end, or to where the plan leaves it.

    Attributes:
        folder: Of the run.
        summary: Of the last life; None: its supervisor died.
        supervisors: Pids, one for each life.
        notes: What was told to people, over all lives.
        error: What the last launch raised, if its supervisor died or was refused.
        booked: Its last supervisor was killed behind the summary: there was nothing to go on with.
    """

    folder: Path
    summary: dict[str, Any] | None
    supervisors: list[int]
    notes: list[str]
    error: Exception | None = None
    booked: bool = False

    @property
    def finished(self) -> bool:
        """Whether it came to its logical end."""
        return self.summary is not None and self.summary["state"] == "finished"


def live(job: Job, plan: Plan, hear: Listener | None = None) -> Lives:
    """One life: launched under a plan, whatever becomes of it."""
    return _lived(Path(job.run_dir), plan, hear, lambda listen: launch(job, listen))


def go_on(run: Path, plan: Plan, hear: Listener | None = None) -> Lives:
    """One more life of a run, likewise."""
    return _lived(run, plan, hear, lambda listen: resume(run, stdin=None, listen=listen).summary)


def _lived(
    run: Path,
    plan: Plan,
    hear: Listener | None,
    begin: Callable[[Listener], dict[str, Any]],
) -> Lives:
    lives = Lives(run, None, [], [])

    def listen(what: str, value: Any) -> None:
        if what == "note":
            lives.notes.append(value)
        if hear is not None:
            hear(what, value)

    with under(plan) as pids:
        dog = threading.Timer(WATCHDOG_S, _bite, (pids,))
        dog.start()
        try:
            lives.summary = begin(listen)
        except (RunStopped, Interrupted) as error:
            lives.error = error
            lives.summary = getattr(error, "summary", None)
        finally:
            dog.cancel()
            dog.join()
    lives.supervisors = pids
    return lives


def _bite(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def carry(job: Job, plan: Plan) -> Lives:
    """Run, and resume until it is finished or a life did not end by the plan's doing."""
    done = live(job, plan)
    over = 0
    while not done.finished and plan.done > over:
        over = plan.done
        more = go_on(done.folder, plan)
        done = replace(
            more,
            supervisors=done.supervisors + more.supervisors,
            notes=done.notes + more.notes,
            booked=not more.supervisors,
        )
    return done


def check_equal(undisturbed: Lives, done: Lives, *, again: bool = False) -> None:
    """The run is the undisturbed one, and nothing of it is left.

    Args:
        undisturbed: Its first and only life.
        done: After whatever happened.
        again: Verify it, too.
    """
    assert done.finished, (done.error, done.summary and done.summary["reason"], done.notes)
    assert done.summary is not None and undisturbed.summary is not None
    for key in ("digest", "digest_text", "exit_code"):
        assert done.summary[key] == undisturbed.summary[key], key
    output = (done.folder / "output.jsonl").read_bytes()
    assert output == (undisturbed.folder / "output.jsonl").read_bytes()
    assert logs(done.folder) == logs(undisturbed.folder)
    assert set(answers(done.folder).values()) <= {1}
    assert answers(done.folder) == answers(undisturbed.folder)
    check_nothing_left(done)
    if again:
        checked = verify(done.folder)
        assert checked.equal and checked.whole


def check_nothing_left(done: Lives) -> None:
    """No process of any life, no segment of it, nothing that only a living run has.

    What a supervisor leaves that is killed is swept when the next one starts.
    """
    if done.booked:
        sweep()
    for supervisor in done.supervisors:
        wait_for_the_end_of(supervisor)
        assert fleets.segments_of(supervisor) == []
    assert done.booked or not (done.folder / "board.json").exists()
    assert not list(done.folder.glob("*.sock"))
    assert not list(done.folder.rglob(".*.part"))


def wait_for_the_end_of(session: int) -> None:
    """Until nobody of a session is alive: the death signal was sent, but they have to act on it."""
    begun_s = time.monotonic()
    while left := processes_of(session):
        assert time.monotonic() - begun_s < WATCHDOG_S, f"processes {left} are still there"


def processes_of(session: int) -> list[int]:
    """Living processes of a session: a supervisor leads one, and so its children are of it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def logs(run: Path) -> dict[str, bytes]:
    """Log files by name."""
    return {path.name: path.read_bytes() for path in sorted((run / "logs").iterdir())}


def answers(run: Path) -> dict[int, int]:
    """How often each ticket of a run was answered, by its journal."""
    tickets: list[int] = []
    ended: Counter[int] = Counter()
    for body in read_journal(run).bodies(journal_format.HISTORY):
        for record in decode(body):
            if record.kind == Kind.TICKET:
                tickets.append(record.id)
            elif record.kind == Kind.STEP:
                ended.update(_ended_in(record.payload))
    assert len(set(tickets)) == len(tickets) and set(ended) <= set(tickets)
    return {ticket: ended[ticket] for ticket in tickets}


def _ended_in(payload: bytes) -> list[int]:
    """Tickets that a step answered: its slots come first, STEP last, then the answers' records."""
    whole = len(payload) // RESULT_SLOT.itemsize * RESULT_SLOT.itemsize
    rows = np.frombuffer(payload[:whole], dtype=RESULT_SLOT)
    last = int(np.flatnonzero(rows["op"] == FromEngine.STEP)[0])
    rows = rows[:last]
    tickets: list[int] = rows["ticket"][rows["op"] == FromEngine.END].tolist()
    return tickets
