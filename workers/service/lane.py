"""Lanes: one run of the service each, over all deaths of its supervisor.

What was accepted is in the run's journal, and nowhere else. So when a supervisor has died, the
record says which of the items that were on their way had arrived; those are not sent again.
"""

import json
import shutil
import time
from array import array
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from lockstep.engine.errors import EXIT_UNFINISHED, LockstepError
from lockstep.engine.fleet import Recovery
from lockstep.workers import folder as folders
from lockstep.workers.job import Job
from lockstep.workers.lifecycle import Restarts
from lockstep.workers.loop import Timer
from lockstep.workers.outside.inlet import PING, SERVICE
from lockstep.workers.outside.lines import Answer
from lockstep.workers.service import history
from lockstep.workers.service.answers import Answers
from lockstep.workers.service.asked import Asked
from lockstep.workers.service.done import Done
from lockstep.workers.service.held import Held, cpu_ticks
from lockstep.workers.service.history import History
from lockstep.workers.service.owner import Owner
from lockstep.workers.service.state import Seen
from lockstep.workers.service.states import (
    BACKOFF,
    ENDED,
    LIVE,
    LOST,
    OVER,
    STARTING,
    STOPPED,
    STUCK,
    verdict,
)

INTERRUPTED = "the run was interrupted; whether it heard this is in its journal: ask again"


class Failure(NamedTuple):
    """Why a supervisor ended, as it said so itself; ``whole``: its run has come to its end."""

    message: str
    exit_code: int
    whole: bool = False


class Lane:
    """One run.

    Attributes:
        state: One of the constants above.
        why: Of `STUCK`, for people.
        exit_code: Likewise.
        exhausted: Likewise: it died too often, and may go on at another time.
        done: What it did since the service holds it.
        folder: Of the run; None: there is none yet.
        bare: No item is in its record, nobody's.
        closing: It takes nothing new.
        came: Items that it was given by the service.
        open: Accepted items that go on, by number.
        answers: Of the others.
    """

    def __init__(self, owner: Owner, job: Job) -> None:
        """A new run, not started yet."""
        self._owner, self._job = owner, job
        self.state, self.why, self.exit_code, self.exhausted = BACKOFF, "", 0, False
        self.folder: Path | None = None
        self.bare = True
        self._seen: Seen | None = None  # The folder's journal.
        self.closing, self.came = False, 0
        self._known = 0  # Items by the service that are in the record, as far as we know.
        self.open: dict[int, Asked] = {}
        self.pending: deque[Asked] = deque()  # On their way, or not even that; in order.
        self.answers = Answers(Path())
        self.done = Done()
        self._commands: deque[Answer] = deque()  # Of clients who wait for the supervisor's.
        self._held: Held | None = None
        self._stopping = False
        self._failure: Failure | None = None
        self._restarts = Restarts(Recovery())
        self._timer: Timer | None = None
        self._pinged = self._ponged = False
        self._ticks = 0

    @classmethod
    def of(cls, owner: Owner, found: History) -> tuple["Lane", list[Asked]]:
        """A run that was there before, and everything that was ever asked of it."""
        folder = found.record.path
        lane = cls(owner, Job(fleet="", base=""))
        lane.folder, lane.closing, lane.bare = folder, found.closed, not found.items
        lane.done = Done(new=False)
        lane.answers = Answers(folder, found.ends)
        asked = []
        for number, item in enumerate(found.items, 1):
            if not item.ours:
                continue
            lane.came += 1
            one = Asked(item.id, item.mark, "", lane, number=number, event=item.event, tag=item.tag)
            asked.append(one)
            if number >= len(found.ends):
                lane.open[number] = one
        lane._known = lane.came
        if found.record.whole:
            lane.state = ENDED
        else:
            lane._job = found.resumption()
        return lane, asked

    @property
    def name(self) -> str:
        """Of the run's folder, also of one that is to be made."""
        return self.folder.name if self.folder is not None else Path(self._job.run_dir).name

    @property
    def pid(self) -> int | None:
        """Of its supervisor, if there is one."""
        return self._held.pid if self._held is not None else None

    @property
    def waiting(self) -> int:
        """Items that are not answered."""
        return len(self.open) + len(self.pending)

    # -- what the service wants -----------------------------------------------------------------

    def start(self) -> None:
        """Start a supervisor; `Owner.changed` tells what comes of it."""
        self._timer = self._failure = None
        self._pinged = self._ponged = False
        if self.folder is None:  # Half made by one that died; nothing was asked of it.
            shutil.rmtree(self._job.run_dir, ignore_errors=True)
        try:
            self._held = Held(self._owner.loop, self._job, self)
        except OSError as error:
            self._failure = Failure(f"no room for a supervisor process: {error}", 0)
            self._fall_back()
            return
        self._become(STARTING)
        self._ping()

    def submit(self, asked: Asked) -> None:
        """Hand an item in."""
        asked.lane = self
        self.pending.append(asked)
        self.came += 1
        if self.state == LIVE:
            self._send(asked)

    def close(self) -> None:
        """Take nothing new, finish what there is, end."""
        self.closing = True
        if self.state == LIVE:
            self._close_source()

    def cancel(self, command: dict[str, Any], answer: Answer) -> bool:
        """Cancel an item or a request; whether there is somebody to do it now."""
        if self.state != LIVE or self._held is None:
            return False
        self._commands.append(answer)
        self._held.ask(json.dumps(command).encode(), self._hear_command)
        return True

    def stop(self) -> None:
        """Stop the run, so that it can go on later."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._held is not None:
            self._held.stop()
        elif self.state not in OVER:
            self._become(STOPPED)

    def look(self) -> None:
        """See whether the folder of the run is still there; else nothing of it counts any more.

        Its supervisor would not notice: it would go on with files that have no names.
        """
        if self.folder is None or self.state == LOST:
            return
        self._seen = self._seen or Seen(self.folder / folders.JOURNALS)
        if not self._seen.is_there():
            self._lose()

    def row(self) -> dict[str, Any]:
        """For the status of the service."""
        return {
            "run": self.name,
            "state": self.state,
            "pid": self.pid,
            "items": self.came,
            "waiting": self.waiting,
            "closing": self.closing,
            "why": self.why,
            "progress": self.done.progress,
        }

    def kill(self) -> None:
        """End its supervisor at once; its children die with it."""
        if self._held is not None:
            self._held.kill()

    def moved(self) -> bool:
        """Whether it got on since this was asked last: its loop went round, or it recovers."""
        if self._held is None:
            return True  # It waits for its time, or is over.
        if self.state == LIVE:
            ponged, self._ponged = self._ponged, False
            self._ping()
            return ponged
        before, self._ticks = self._ticks, cpu_ticks(self._held.pid)
        return self._ticks != before

    # -- what the supervisor says ---------------------------------------------------------------

    def said(self, what: str, value: Any) -> None:
        """As `Holder`."""
        log = self._owner.log
        match what:
            case "run" if self.folder is None:
                self.folder = Path(value)
                self.answers = Answers(self.folder)
                self.look()  # From now on it is this one.
            case "note":
                log.warning(str(value), run=self.name)
            case "progress":
                self.done.told(value)
            case "summary":
                whole = value["state"] == "finished"
                self._failure = Failure(str(value["reason"]), int(value["exit_code"]), whole)
            case "error":
                self._failure = Failure(str(value["message"]), int(value["exit_code"]))

    def closed(self, number: int, lines: bytes) -> None:
        """As `Holder`."""
        self.answers.add(number, lines)
        asked = self.open.pop(number, None)
        if asked is not None:
            self._owner.answered(asked, lines)

    def tokens(self, number: int, told: bytes) -> None:
        """As `Holder`."""
        asked = self.open.get(number)
        if asked is not None:
            line = b'{"id":' + asked.id.encode() + b"," + told
            for waiter in asked.waiters:
                if waiter.told:
                    waiter.answer.more(line)

    def ended(self) -> None:
        """As `Holder`."""
        assert self._held is not None
        status, self._held = self._held.status(), None
        while self._commands:
            self._hear_command({"error": INTERRUPTED, "code": "later", "retry_after_s": 1.0})
        self.look()
        if self.state == LOST:
            return
        if self._failure is None:
            self._failure = Failure(f"the supervisor process ended with {status}", EXIT_UNFINISHED)
        try:
            ended = self._take_stock()
        except LockstepError as error:
            self.bare = False  # Nobody knows.
            self._stick(str(error), error.exit_code)
            return
        match verdict(ended, self._stopping, self._failure.exit_code):
            case "ended":
                self._leave(ENDED)
            case "stopped":
                self._become(STOPPED)
            case "stuck":
                self.why, self.exit_code, _ = self._failure
                self._leave(STUCK)
            case _:
                self._fall_back()

    # -- how ------------------------------------------------------------------------------------

    def _send(self, asked: Asked) -> None:
        assert self._held is not None
        self._held.ask(asked.kind + asked.line, self._hear_item)

    def _hear_item(self, answer: dict[str, Any]) -> None:
        if self.state == LOST:
            return
        asked = self.pending.popleft()  # Answers come in order.
        if "error" in answer:
            self.came -= 1
            self._owner.refused(asked, answer["error"])
        else:
            self._accept(asked, answer["item"], answer["event"], answer["tag"])

    def _hear_command(self, answer: dict[str, Any]) -> None:
        self._commands.popleft().give(answer)

    def _accept(self, asked: Asked, number: int, event: int, tag: str) -> None:
        asked.number, asked.event, asked.tag, asked.line = number, event, tag, b""
        self.bare, self._known = False, self._known + 1
        self.open[number] = asked
        self._owner.accepted(asked)

    def _close_source(self) -> None:
        assert self._held is not None
        command = {"do": "cancel", "source": SERVICE, "by": "the service"}
        self._held.ask(json.dumps(command).encode(), lambda _: None)  # It may be closed already.

    def _ping(self) -> None:
        if self._held is not None and not self._pinged:
            self._pinged = True
            self._held.ask(PING, self._pong)

    def _pong(self, _: dict[str, Any]) -> None:
        self._pinged, self._ponged = False, True
        if self.state != STARTING:
            return
        for asked in self.pending:
            self._send(asked)
        if self.closing:
            self._close_source()
        self._become(LIVE)

    def _take_stock(self) -> bool:
        """Nobody holds the run: what its record says of what we asked. Whether it has its end.

        Raises:
            LockstepError: it cannot be read.
        """
        if self.folder is None:
            return False  # It never began; nothing was asked of it.
        if self._failure is not None and self._failure.whole and self._known and not self.waiting:
            return True  # All is told already: nobody has to wait while a long journal is read.
        found = history.read(self.folder)
        self.bare = not found.items
        ours = [(number, item) for number, item in enumerate(found.items, 1) if item.ours]
        for number, item in ours[self._known :]:  # They had arrived, and we had not heard of it.
            asked = next((one for one in self.pending if one.mark == item.mark), None)
            if asked is None:
                self._known += 1  # Somebody else's, who went on with the run meanwhile.
                continue
            self.pending.remove(asked)
            self._accept(asked, number, item.event, item.tag)
        self.closing = self.closing or found.closed
        answers = Answers(self.folder, array("Q", found.ends))
        answers.take_over(self.answers)  # Given, and not in the output file yet.
        for number in [number for number in self.open if number < len(found.ends)]:
            self._owner.answered(self.open.pop(number), answers.get(number) or b"")
        self.answers = answers
        self._job = found.resumption()
        return found.record.whole

    def _lose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.kill()
        if self.state == STUCK:
            self.open.clear()  # Whoever asked for them heard that a person has to look.
        left, self.pending = list(self.pending), deque()
        self.state, self.why = LOST, "its folder was removed, or moved away"
        self._owner.homeless(left)
        self._owner.lost(self)

    def _leave(self, state: str) -> None:
        """The run is over; what is not in its record belongs into another one."""
        left, self.pending = list(self.pending), deque()
        self.came -= len(left)
        self.state = state
        self._owner.homeless(left)  # First: who hears of the end may forget all that is still ours.
        self._owner.changed(self)

    def _fall_back(self) -> None:
        """An accident: again, in a while; not for ever."""
        assert self._failure is not None
        wait_s = self._restarts.next(time.monotonic())
        if wait_s is None:
            why = f"{self._failure.message}; {self._restarts.exhausted()}"
            self.exhausted = True
            self._stick(why, EXIT_UNFINISHED)
            return
        self.done.died()
        self._owner.log.warning(
            f"{self._failure.message}; it is started again", run=self.name, in_s=round(wait_s, 1)
        )
        self._become(BACKOFF)
        self._timer = self._owner.loop.after(wait_s, self.start)

    def _stick(self, why: str, exit_code: int) -> None:
        self.why, self.exit_code = why, exit_code
        self._become(STUCK)

    def _become(self, state: str) -> None:
        self.state = state
        self._owner.changed(self)
