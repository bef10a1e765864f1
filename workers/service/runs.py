"""The runs of a service: which there are, and which of them takes new items.

After whatever happened, what is is compared with what ought to be (`Runs.settle`): there is one
run that takes new items, all others finish what they have.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lockstep.engine.errors import EXIT_UNFINISHED, LockstepError
from lockstep.workers import folder as folders
from lockstep.workers import prepare
from lockstep.workers.job import Job
from lockstep.workers.prepare import Prepared
from lockstep.workers.service import history
from lockstep.workers.service.asked import Asked
from lockstep.workers.service.done import COUNTED
from lockstep.workers.service.lane import Lane
from lockstep.workers.service.load import Load
from lockstep.workers.service.options import Options
from lockstep.workers.service.owner import Owner
from lockstep.workers.service.state import StateFolder, surplus
from lockstep.workers.service.states import BACKOFF, ENDED, LIVE, OVER, STARTING

PAUSE_S = 60.0  # After a new run was refused, before a full one asks for another.


class Keeper(Owner, Protocol):
    """The service, as its runs see it."""

    def remember(self, asked: list[Asked]) -> None:
        """Items of a run that was there before."""

    def forget(self, lane: Lane) -> None:
        """The run was removed."""

    def serves(self, prepared: Prepared) -> None:
        """Another run takes new items now, or none of the next fleet is going to."""

    def failed(self, why: str, exit_code: int) -> None:
        """There is no run that takes items, and none can be begun."""


class Runs:
    """Every run that is kept.

    Attributes:
        prepared: The fleet that takes new items, or is about to.
        lanes: In order of their runs; those that have ended, too.
        current: Takes new items; None: none yet.
        unreadable: Names of folders that are left as they are.
        begun: New runs, since the service was started.
    """

    def __init__(self, owner: Keeper, options: Options) -> None:
        """Read the fleet.

        Raises:
            UsageError: it cannot be served.
        """
        self._owner, self._options = owner, options
        self.prepared = self._before = self._read_fleet()
        self.lanes: list[Lane] = []
        self.current: Lane | None = None
        self.unreadable: list[str] = []
        self.begun = 0
        self._done: Counter[str] = Counter()  # By runs that are forgotten.
        self._load: tuple[Lane, Load] | None = None  # Of `current`.
        self._state: StateFolder
        self._next: Lane | None = None  # Takes new items as soon as it is live.
        self._changed = False  # The fleet has, on disk; nobody asked for a reload.
        self._refused_s = -math.inf  # When a new run was, the last time.

    @property
    def over(self) -> bool:
        """Whether none goes on."""
        return all(lane.state in OVER for lane in self.lanes)

    @property
    def settled(self) -> bool:
        """Whether whatever was there is back, or known not to come back."""
        return not any(lane.state in (STARTING, BACKOFF) for lane in self.lanes)

    def done(self) -> dict[str, int]:
        """What all runs did since the service was started."""
        total = self._done.copy()
        for lane in self.lanes:
            total.update(lane.done.counts)
        return {key: total[key] for key in COUNTED}

    def load(self) -> Load | None:
        """Of the run that takes new items, while it lives."""
        current = self.current
        if current is None or current.state != LIVE or current.folder is None:
            return None
        if self._load is None or self._load[0] is not current:
            self._load = current, Load(current.folder)
        return self._load[1]

    def has_other(self, lane: Lane) -> bool:
        """Whether another run than this one takes new items."""
        current = self.current
        return current is not None and current is not lane and current.state not in OVER

    # -- what was there before ------------------------------------------------------------------

    def recover(self, state: StateFolder, gets_on: Callable[[], None]) -> None:
        """Go on with every run that has not ended.

        Args:
            state: Where they are.
            gets_on: Called while this takes its time.

        Raises:
            UsageError: somebody holds one.
        """
        self._state = state
        unfinished = []
        for path in state.found(lambda _: gets_on()):
            gets_on()
            lane = self._found(path)
            if lane is not None and lane.state != ENDED:
                if path.name == state.current() and not lane.closing and self._is_current(path):
                    self.current = lane
                else:
                    lane.close()
                unfinished.append(lane)
        self.retire()
        for lane in unfinished:
            self._owner.log.notice("a run goes on", run=lane.name, waiting=lane.waiting)
            lane.start()

    def _found(self, run: Path) -> Lane | None:
        try:
            found = history.read(run)
        except LockstepError as error:
            self._owner.log.error(
                f"a run cannot be read; it is left as it is: {error}", run=run.name
            )
            self.unreadable.append(run.name)
            return None
        lane, asked = Lane.of(self._owner, found)
        self.lanes.append(lane)
        self._owner.remember(asked)
        return lane

    def _is_current(self, run: Path) -> bool:
        """Whether a run is of the fleet as it is now; else it finishes its own items only."""
        names = [f"modules/{group.name}.wasm" for group in self.prepared.fleet.groups]
        try:
            found = [(run / name).read_bytes() for name in (folders.FLEET, *names)]
        except OSError:
            return False
        return found == [self.prepared.fleet_bytes, *self.prepared.modules]

    # -- what ought to be -----------------------------------------------------------------------

    def settle(self) -> None:
        """The next step towards it; nothing when all is as it ought to be."""
        if self._next is not None and self._next.state in (LIVE, *OVER):
            self._take_over(self._next)
        elif self._next is None and (self.current is None or self.current.state in OVER):
            self._begin()

    def place(self) -> Lane | None:
        """Where new items go now; None: nowhere, and none can be begun."""
        if self.current is not None:
            self.current.look()  # What is taken from now on has to be there afterwards.
        if self.current is not None and self.current.state not in OVER:
            return self.current
        if self._next is None:
            self._begin()
        return self._next

    def reload(self) -> bool:
        """New items to the fleet as it is on disk now; whether that is begun, or was refused.

        Raises:
            LockstepError: it cannot be served; all is as it was.
        """
        if self._next is not None:
            return False
        prepared = self._read_fleet()
        self._before, self.prepared = self.prepared, prepared
        self._begin()
        return True

    def rotate(self) -> None:
        """After so many items a new run: one grows, and takes ever longer to be brought back."""
        most, current = self._options.run_items_max, self.current
        if not most or current is None or current.came < most:
            return
        if self._next is not None or self._changed:
            return
        if time.monotonic() - self._refused_s < PAUSE_S:
            return
        if self._changed_on_disk():
            self._changed = True
            self._owner.log.warning("the fleet has changed on disk: no new run before a reload")
            return
        self._owner.log.info("a new run takes the next items", after=current.came)
        self._begin()

    def look(self) -> None:
        """See which folders are still there."""
        if not self._state.held:
            why = f"{self._state.path}: the state folder was removed, or is another one now"
            self._owner.failed(why, EXIT_UNFINISHED)
            return
        for lane in self.lanes[:]:
            lane.look()

    def retire(self) -> None:
        """Remove runs that nobody wants to keep."""
        self.look()  # A person may have been faster.
        ended = {lane.folder: lane for lane in self.lanes if lane.state == ENDED and lane.folder}
        for path in surplus(list(ended), self._options.keep):
            try:
                self._state.remove(path)
            except OSError as error:
                self._owner.log.warning(f"a run cannot be removed: {error}", run=path.name)
                continue
            self._owner.log.info("a run was removed", run=path.name)
            self.drop(ended[path])

    def drop(self, lane: Lane) -> None:
        """The folder of a lane is gone, or there never was one."""
        self.lanes.remove(lane)
        self._done.update(lane.done.counts)
        self._owner.forget(lane)
        self.current = None if lane is self.current else self.current
        self._next = None if lane is self._next else self._next

    # -- how ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        options = self._options
        try:
            run = self._state.next_run(self.prepared.fleet.name)
        except OSError as error:
            why = f"{self._state.runs}: no run can be begun: {error.strerror}"
            self._owner.failed(why, EXIT_UNFINISHED)
            return
        job = Job(
            fleet=str(options.fleet),
            base=str(options.state),
            seed=options.seed,
            run_dir=str(run),
            durability=options.durability,
            serves=True,
            calls=options.http is not None,
        )
        self.begun += 1
        self._next = Lane(self._owner, job)
        self.lanes.append(self._next)
        self._next.start()

    def _take_over(self, lane: Lane) -> None:
        """The next run is live, or it is not going to be."""
        before, self._next = self.current, None
        if lane.state == LIVE:
            assert lane.folder is not None
            self.current, self._before, self._changed = lane, self.prepared, False
            self._mark(lane.folder)
            if before is not None:
                before.close()
        elif not self.has_other(lane):
            self._owner.failed(f"no run takes items: {lane.why}", lane.exit_code)
        else:
            self._owner.log.error("the new run was refused; the old one goes on", why=lane.why)
            self.prepared, self._refused_s = self._before, time.monotonic()
        if lane.state in OVER and lane.bare:
            self._discard(lane)
        self._owner.serves(self.prepared)

    def _discard(self, lane: Lane) -> None:
        """A run that never took an item: the log has why."""
        self.drop(lane)
        if lane.folder is not None:
            try:
                self._state.remove(lane.folder)
            except OSError as error:
                self._owner.log.warning(f"a run cannot be removed: {error}", run=lane.name)

    def _mark(self, run: Path) -> None:
        try:
            self._state.make_current(run)
        except OSError as error:
            # Started again, the service would begin another run beside this one.
            self._owner.log.warning(f"the current run cannot be marked: {error}", run=run.name)

    def _read_fleet(self) -> Prepared:
        options = self._options
        calls = options.http is not None
        return prepare.prepare(options.fleet, None, options.seed, serves=True, calls=calls)

    def _changed_on_disk(self) -> bool:
        try:
            found = self._read_fleet()
        except LockstepError:
            return True
        ours = self.prepared
        return (found.fleet_bytes, found.modules) != (ours.fleet_bytes, ours.modules)
