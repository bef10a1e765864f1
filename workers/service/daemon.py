"""The service itself: which runs there are, which one takes new items, and when it all ends.

One thread and one loop, beside the supervisors of its runs. After whatever happened it compares
what is with what ought to be (`_settle`), and takes the next step towards it.
"""

import os
import signal
import time
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lockstep.engine.errors import EXIT_OK, EXIT_UNFINISHED, LockstepError, RunStopped, UsageError
from lockstep.engine.version import VERSION
from lockstep.workers import prepare
from lockstep.workers.job import Job
from lockstep.workers.loop import Loop, Timer
from lockstep.workers.outside.lines import LineServer
from lockstep.workers.prepare import Prepared
from lockstep.workers.service import history
from lockstep.workers.service.desk import Desk, Refusal
from lockstep.workers.service.lane import BACKOFF, ENDED, LIVE, OVER, STARTING, STUCK, Asked, Lane
from lockstep.workers.service.limits import Limits
from lockstep.workers.service.log import Log
from lockstep.workers.service.notify import Notifier
from lockstep.workers.service.state import CONTROL, Keep, StateFolder, surplus
from lockstep.workers.signals import Signals

TICK_S_MAX = 2.0  # Between two looks at whether everybody gets on.
TICKS = 4  # So many within the time that a watchdog allows.
EXTEND_S = 30.0  # What a start or a stop that gets on is given.
KILL_S = 30.0  # A supervisor that was asked to stop has so long.
REQUEST_BYTES = 1 << 16  # Of a request, beside its item.
IDLE_S = 600.0
CLIENTS_MAX = 256
STOPPED_TEXT = (
    "the service has stopped; what it had accepted goes on when it is started again: ask again "
    "with the same id"
)


@dataclass(frozen=True, slots=True)
class Options:
    """What a person decides. Paths are absolute.

    Attributes:
        fleet: Fleet file.
        state: Folder of the service.
        socket_dir: Folder of the control socket; None: the state folder.
        seed: In place of the fleet's.
        durability: "async" or "sync".
        stop_s: What is in flight may take so long to finish when the service is stopped.
        run_items_max: After so many items a new run takes the next ones; 0: never.
        limits: How much may wait.
        keep: How much is kept.
    """

    fleet: Path
    state: Path
    socket_dir: Path | None = None
    seed: int | None = None
    durability: str = "async"
    stop_s: float = 20.0
    run_items_max: int = 20_000
    limits: Limits = field(default_factory=Limits)
    keep: Keep = field(default_factory=Keep)


class Service:
    """One service, from its start to its exit code.

    Attributes:
        loop: Of this process.
        log: What it says.
    """

    def __init__(self, options: Options, environment: MutableMapping[str, str]) -> None:
        """Read the fleet, hold the state folder.

        Raises:
            UsageError: the fleet cannot be served, or another service holds the folder.
        """
        self._options = options
        self._notify = Notifier(environment)
        self.log = Log(2, environment)
        self._prepared = self._read_fleet()
        self._state = StateFolder(options.state)
        self.loop = Loop()
        self._signals = Signals()
        self._desk = Desk(self, options.limits, self._prepared.fleet.record_bytes_max)
        self._lanes: list[Lane] = []  # In order of their runs; those that ended are kept, too.
        self._current: Lane | None = None
        self._next: Lane | None = None  # Takes new items as soon as it is live.
        self._ready = self._draining = self._stopping = self._done = False
        self._reloading = self._changed = False
        self._before = self._prepared  # Of the current run, while the next one begins.
        self._code, self._why = EXIT_OK, ""
        self._kill: Timer | None = None
        self._began_s = time.monotonic()

    # -- its life -------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until somebody ends it. Returns the exit code.

        Raises:
            LockstepError: it cannot go on; everything accepted is in the run folders.
        """
        try:
            self._begin()
            while not self._done:
                self.loop.turn()
            if self._why:
                raise _failure(self._why, self._code)
            self.log.notice("the service has ended")
            return self._code
        finally:
            self._end()

    def _begin(self) -> None:
        self.log.notice(
            "the service starts", version=VERSION, fleet=self._options.fleet, pid=os.getpid()
        )
        self.loop.watch(self._signals.descriptor, self._signalled)
        self._recover()
        folder = self._options.socket_dir or self._options.state
        most = self._prepared.fleet.record_bytes_max + REQUEST_BYTES
        self._server = LineServer(
            self.loop, folder, CONTROL, most, self._desk.hear, idle_s=IDLE_S,
            clients_max=CLIENTS_MAX,
        )  # fmt: skip
        self._settle()
        self._write_info()
        self._tick()

    def _end(self) -> None:
        """Whatever happened: nobody is left, and everybody has an answer."""
        for lane in self._lanes:
            lane.kill()
            self._desk.give_up(lane, self._why or STOPPED_TEXT, "stopped")
        if hasattr(self, "_server"):
            self._server.close()
        self._notify.close()
        self._state.close()

    def _signalled(self) -> None:
        for number in self._signals.arrived():
            if number == signal.SIGHUP:
                self._reload()
            else:
                self._stop(signal.Signals(number).name)

    # -- what was there before ------------------------------------------------------------------

    def _recover(self) -> None:
        """Go on with every run that has not ended."""
        name = self._state.current()
        unfinished = []
        for path in self._state.found(lambda _: self._notify.extend(EXTEND_S)):
            self._notify.extend(EXTEND_S)
            try:
                found = history.read(path)
            except LockstepError as error:
                self.log.error(f"a run cannot be read; it is left as it is: {error}", run=path.name)
                continue
            lane, asked = Lane.of(self, found)
            self._lanes.append(lane)
            self._desk.remember(asked)
            if lane.state == ENDED:
                continue
            self.log.notice("a run goes on", run=path.name, waiting=lane.waiting)
            if path.name == name and not lane.closing and self._serves(path):
                self._current = lane
            else:
                lane.close()
            unfinished.append(lane)
        self._retire()
        for lane in unfinished:
            lane.start()

    def _serves(self, run: Path) -> bool:
        """Whether a run is of the fleet as it is now; else it finishes its own items only."""
        prepared = self._prepared
        try:
            modules = [
                (run / "modules" / f"{group.name}.wasm").read_bytes()
                for group in prepared.fleet.groups
            ]
            return (run / "fleet.toml").read_bytes() == prepared.fleet_bytes and modules == [
                *prepared.modules
            ]
        except OSError:
            return False

    def _read_fleet(self) -> Prepared:
        return prepare.prepare(self._options.fleet, None, self._options.seed, serves=True)

    # -- what ought to be -----------------------------------------------------------------------

    def changed(self, lane: Lane) -> None:
        """As `lane.Owner`."""
        text = f"the run is {lane.state}"
        if lane.state == STUCK:
            self.log.error(f"{text}: {lane.why}", run=lane.name)
            why = f"run {lane.name} does not go on: {lane.why}"
            self._desk.give_up(lane, why, "stuck")
        elif lane.state != BACKOFF:
            self.log.info(text, run=lane.name, waiting=lane.waiting)
        if lane.state == ENDED:
            self._retire()
        self._settle()

    def _settle(self) -> None:
        """The next step towards what ought to be; nothing when all is as it ought to be."""
        if self._stopping:
            self._finish_stop()
            return
        if self._next is not None and self._next.state in (LIVE, *OVER):
            self._take_over(self._next)
        if self._done:
            return
        if self._draining:
            self._finish_drain()
            return
        current = self._current
        if self._next is None and (current is None or current.state in OVER):
            self._begin_run()
        if not self._ready and not any(lane.state in (STARTING, BACKOFF) for lane in self._lanes):
            self._ready = True
            self._notify.ready()
            self.log.notice("ready", run=self.lane().name)
        self._tell_status()

    def _finish_drain(self) -> None:
        if all(lane.state in OVER for lane in self._lanes):
            self._done = True
            stuck = [lane.name for lane in self._lanes if lane.state == STUCK]
            if stuck:
                self._fail(f"runs that could not be finished: {', '.join(stuck)}", EXIT_UNFINISHED)

    def _begin_run(self) -> None:
        options = self._options
        run = self._state.next_run(self._prepared.fleet.name)
        lane = Lane(
            self,
            Job(
                fleet=str(options.fleet),
                base=str(options.state),
                seed=options.seed,
                run_dir=str(run),
                durability=options.durability,
                serves=True,
            ),
        )
        self._lanes.append(lane)
        self._next = lane
        lane.start()

    def _take_over(self, lane: Lane) -> None:
        """The next run is live, or it is not going to be."""
        before, self._next = self._current, None
        if lane.state == LIVE:
            assert lane.folder is not None
            self._current = lane
            self._state.make_current(lane.folder)
            self._changed = False
            self._desk.record_bytes_max = most = self._prepared.fleet.record_bytes_max
            self._server.line_bytes_max = most + REQUEST_BYTES
            if before is not None:
                before.close()
        elif before is None or before.state in OVER:
            self._fail(f"no run takes items: {lane.why}", lane.exit_code)
        else:
            self.log.error("the new run was refused; the old one goes on", why=lane.why)
            self._prepared = self._before
        if lane.folder is None:
            self._lanes.remove(lane)
        if self._reloading:
            self._reloading = False
            self._notify.ready()
        self._write_info()

    def _fail(self, why: str, code: int) -> None:
        self._why, self._code, self._done = why, code, True

    def homeless(self, asked: list[Asked]) -> None:
        """As `lane.Owner`."""
        for one in asked:
            try:
                self.lane().submit(one)
            except Refusal as refusal:
                self._desk.refused(one, str(refusal))

    # -- ends and changes -----------------------------------------------------------------------

    def _stop(self, why: str) -> None:
        """Take nothing new, finish what is in flight within its time, then stop; twice: at once."""
        if self._stopping:
            self._halt()
            return
        self._stopping = True
        self.log.notice(
            "stopping", why=why, waiting=self._desk.occupancy.total, seconds=self._options.stop_s
        )
        self._notify.stopping()
        self.loop.after(self._options.stop_s, self._halt)
        self._finish_stop()

    def _finish_stop(self) -> None:
        if all(lane.state in OVER for lane in self._lanes):
            self._done = True
        elif not self._desk.occupancy.total:
            self._halt()

    def _halt(self) -> None:
        """Stop every run, so that it can go on later; what does not stop is killed."""
        if self._kill is not None:
            return
        self._kill = self.loop.after(KILL_S, self._kill_all)
        for lane in self._lanes:
            lane.stop()
        if all(lane.state in OVER for lane in self._lanes):
            self._done = True

    def _kill_all(self) -> None:
        for lane in self._lanes:
            if lane.state not in OVER:
                self.log.error("it did not stop and is killed", run=lane.name)
                lane.kill()

    def _reload(self) -> None:
        """New items to the fleet as it is in its file now; what there is finishes where it is."""
        if self._stopping or self._draining or self._next is not None:
            self.log.warning("no reload now: the service is starting a run, or ending")
            return
        self.log.notice("reloading", fleet=self._options.fleet)
        self._notify.reloading()
        self._before = self._prepared
        try:
            self._prepared = self._read_fleet()
        except LockstepError as error:
            self.log.error(f"the new fleet was refused; the old one goes on: {error}")
            self._notify.ready()
            return
        self._reloading = True
        self._begin_run()

    def drain(self) -> None:
        """As `desk.Service`."""
        self.log.notice("draining", waiting=self._desk.occupancy.total)
        self._draining = True
        for lane in self._lanes:
            if lane.state not in OVER:
                lane.close()
        self._settle()

    def _rotate(self) -> None:
        """After so many items a new run: it would grow, and take ever longer to be brought back."""
        most, current = self._options.run_items_max, self._current
        if not most or current is None or current.came < most or self._next is not None:
            return
        if self._draining or self._stopping or self._changed:
            return
        if self._changed_on_disk():
            self._changed = True
            self.log.warning("the fleet has changed on disk: no new run before a reload")
            return
        self.log.info("a new run takes the next items", after=current.came)
        self._before = self._prepared
        self._begin_run()

    def _changed_on_disk(self) -> bool:
        try:
            found = self._read_fleet()
        except LockstepError:
            return True
        ours = self._prepared
        return (found.fleet_bytes, found.modules) != (ours.fleet_bytes, ours.modules)

    def _retire(self) -> None:
        """Remove runs that nobody wants to keep."""
        ended = [lane for lane in self._lanes if lane.state == ENDED and lane.folder is not None]
        paths = [lane.folder for lane in ended if lane.folder is not None]
        for path in surplus(paths, self._options.keep, time.time()):
            (lane,) = [lane for lane in ended if lane.folder == path]
            try:
                self._state.remove(path)
            except OSError as error:
                self.log.warning(f"a run cannot be removed: {error}", run=path.name)
                continue
            self.log.info("a run was removed", run=path.name)
            self._lanes.remove(lane)
            self._desk.forget(lane)

    # -- what lanes and clients want ------------------------------------------------------------

    def accepted(self, asked: Asked) -> None:
        """As `lane.Owner`."""
        self._desk.accepted(asked)
        self._rotate()

    def refused(self, asked: Asked, why: str) -> None:
        """As `lane.Owner`."""
        self._desk.refused(asked, why)

    def answered(self, asked: Asked, lines: bytes) -> None:
        """As `lane.Owner`."""
        self._desk.answered(asked, lines)
        if self._stopping:
            self._finish_stop()

    def lane(self) -> Lane:
        """As `desk.Service`."""
        if self._stopping or self._draining:
            doing = "stopping" if self._stopping else "draining"
            raise Refusal(f"the service is {doing} and takes nothing new", doing)
        current = self._current
        if current is not None and current.state not in OVER:
            return current
        if self._next is None:
            self._begin_run()
        assert self._next is not None
        return self._next

    def status(self) -> dict[str, Any]:
        """As `desk.Service`."""
        desk, options = self._desk, self._options
        return {
            "state": self._doing(),
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            "fleet": str(options.fleet),
            "state_dir": str(options.state),
            "run": str(self._current.folder) if self._current is not None else None,
            "waiting": desk.occupancy.total,
            "waiting_max": options.limits.waiting_max,
            "client_waiting_max": options.limits.client_max,
            "clients": desk.occupancy.clients(),
            "accepted": desk.accepted_count,
            "answered": desk.answered_count,
            "runs": [_row(lane) for lane in self._lanes],
        }

    # -- what is told ---------------------------------------------------------------------------

    def _doing(self) -> str:
        if self._stopping:
            return "stopping"
        if self._draining:
            return "draining"
        if not self._ready:
            return "starting"
        current = self._current
        return "ready" if current is not None and current.state == LIVE else "recovering"

    def _tick(self) -> None:
        """Whether everybody gets on: only then are we alive for who watches."""
        watchdog_s = self._notify.watchdog_s
        period_s = min(TICK_S_MAX, watchdog_s / TICKS) if watchdog_s else TICK_S_MAX
        self.loop.after(period_s, self._tick)
        moved = [lane.moved() for lane in self._lanes]  # Each is asked.
        if all(moved):
            if self._ready:
                self._notify.alive()
            if not self._ready or self._stopping:
                self._notify.extend(EXTEND_S)
        self._tell_status()

    def _tell_status(self) -> None:
        desk = self._desk
        self._notify.status(
            f"{self._doing()}: {desk.occupancy.total} items wait, {desk.answered_count} answered"
        )

    def _write_info(self) -> None:
        folder = self._options.socket_dir or self._options.state
        current = self._current
        with suppress(OSError):  # A full disk must not end what goes on.
            self._state.write(
                {
                    "pid": os.getpid(),
                    "fleet": str(self._options.fleet),
                    "socket": str(folder / CONTROL),
                    "run": str(current.folder) if current is not None else None,
                }
            )


def _row(lane: Lane) -> dict[str, Any]:
    return {
        "run": lane.name,
        "state": lane.state,
        "pid": lane.pid,
        "items": lane.came,
        "waiting": lane.waiting,
        "closing": lane.closing,
        "why": lane.why,
        "progress": lane.progress,
    }


def _failure(why: str, code: int) -> LockstepError:
    return UsageError(why) if code == UsageError.exit_code else RunStopped(why)


def serve(options: Options, environment: MutableMapping[str, str]) -> int:
    """Serve a fleet until somebody ends it; the exit code.

    Raises:
        LockstepError: it could not begin, or could not go on.
    """
    return Service(options, environment).run()
