"""The service itself: one thread and one loop, beside the supervisors of its runs.

It ties clients (desk.py), runs (runs.py) and whoever watches together, and decides when it ends.
"""

import os
import signal
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from lockstep.engine.errors import (
    EXIT_OK,
    EXIT_UNFINISHED,
    LockstepError,
    RunStopped,
    UsageError,
)
from lockstep.engine.version import VERSION
from lockstep.workers.loop import Loop, Timer
from lockstep.workers.outside.lines import LineServer
from lockstep.workers.prepare import Prepared
from lockstep.workers.service import status
from lockstep.workers.service.asked import Asked
from lockstep.workers.service.desk import Desk, Refusal
from lockstep.workers.service.front import Front
from lockstep.workers.service.lane import Lane
from lockstep.workers.service.log import Log
from lockstep.workers.service.notify import Notifier
from lockstep.workers.service.options import Options
from lockstep.workers.service.runs import Runs
from lockstep.workers.service.state import CONTROL, StateFolder, make_private
from lockstep.workers.service.states import BACKOFF, ENDED, LIVE, OVER, STUCK
from lockstep.workers.signals import Signals

TICK_S_MAX = 2.0  # Between two looks at whether everybody gets on.
TICKS = 4  # So many within the time that a watchdog allows.
EXTEND_S = 30.0  # What a start or a stop that gets on is given.
KILL_S = 30.0  # A supervisor that was asked to stop has so long.
REQUEST_BYTES = 1 << 16  # Of a request, beside its item.
IDLE_S = 60.0  # Of clients who wait for nothing.
CLIENTS_MAX = 256
SHOWN = 5  # Ids of lost items, in the log.
STOPPED_TEXT = (
    "the service has stopped; what it had accepted goes on when it is started again: ask again "
    "with the same id"
)


class Service:
    """One service, from its start to its exit code.

    Attributes:
        loop: Of this process.
        log: What it says.
        calls: Whether it takes calls to models.
    """

    def __init__(self, options: Options, environment: MutableMapping[str, str]) -> None:
        """Read the fleet, hold the state folder, listen.

        Raises:
            UsageError: the fleet cannot be served, another service holds the folder, or a socket
                cannot be had.
        """
        self._options = options
        self._notify = Notifier(environment)
        self.log = Log(2, environment)
        self.loop = Loop()
        self._signals = Signals()
        self._runs = Runs(self, options)
        self._desk = Desk(self, options.limits)
        self._ready = self._draining = self._stopping = self._reloading = self._done = False
        self._code, self._why = EXIT_OK, ""
        self._lost: list[str] = []  # Runs that were taken away with unanswered items.
        self._kill: Timer | None = None
        self._began_s = time.monotonic()
        self._sockets = options.socket_dir or options.state
        if options.socket_dir is not None:
            make_private(options.socket_dir)
        self._state = StateFolder(options.state)
        self.calls = options.http is not None
        try:
            self._server = self._listening()
            self._front = self._made_front()
        except UsageError:
            self._state.close()
            raise
        self.serves(self._runs.prepared)

    def _listening(self) -> LineServer:
        try:
            return LineServer(
                self.loop, self._sockets, CONTROL, 0, self._desk.hear, idle_s=IDLE_S,
                clients_max=CLIENTS_MAX,
            )  # fmt: skip
        except OSError as error:
            why = f"{self._sockets / CONTROL}: cannot listen: {error.strerror}"
            raise UsageError(why) from None

    def _made_front(self) -> Front | None:
        if self._options.http is None:
            return None
        try:
            return Front(self.loop, self.log, self._options.http, self._sockets / CONTROL)
        except UsageError:
            self._server.close()
            raise

    # -- its life -------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until somebody ends it. Returns the exit code.

        Raises:
            LockstepError: it cannot go on; everything accepted is in the run folders.
        """
        self.log.notice(
            "the service starts", version=VERSION, fleet=self._options.fleet, pid=os.getpid()
        )
        try:
            self.loop.watch(self._signals.descriptor, self._signalled)
            if self._front is not None:
                self.log.notice("HTTP clients are served", address=self._front.address)
                self._front.start()
            self._runs.recover(self._state, lambda: self._notify.extend(EXTEND_S))
            self._write_info()
            self._settle()
            self._tick()
            while not self._done:
                self.loop.turn()
        finally:
            self._end()
        if self._why:
            self.log.error(f"the service has ended: {self._why}", exit_code=self._code)
            kind = UsageError if self._code == UsageError.exit_code else RunStopped
            raise kind(self._why)
        self.log.notice("the service has ended")
        return self._code

    def _end(self) -> None:
        """Everybody has an answer. A supervisor that is left stops by itself when we are gone."""
        for lane in self._runs.lanes:
            self._desk.give_up(lane, self._why or STOPPED_TEXT, "stopped")
        self._server.close()
        if self._front is not None:  # It has heard of all of that.
            self._front.close()
        self._notify.close()
        self._state.close()

    def _settle(self) -> None:
        """The next step towards what ought to be."""
        if self._done:
            return
        if self._stopping:
            self._finish_stop()
        elif self._draining:
            self._finish_drain()
        else:
            self._runs.settle()
            self._tell_ready()

    def _tell_ready(self) -> None:
        current = self._runs.current
        if not self._ready and self._runs.settled and current is not None:
            self._ready = True
            self._notify.ready()
            self.log.notice("ready", run=current.name)
        self._tell_status()

    # -- ends and changes -----------------------------------------------------------------------

    def _signalled(self) -> None:
        for number in self._signals.arrived():
            if number == signal.SIGHUP:
                self._reload()
            else:
                self._stop(signal.Signals(number).name)

    def _stop(self, why: str) -> None:
        """Take nothing new, finish what is in flight within its time, then stop; twice: at once."""
        if self._stopping:
            self._halt()
            return
        self._stopping = True
        waiting, seconds = self._desk.occupancy.total, self._options.stop_s
        self.log.notice("stopping", why=why, waiting=waiting, seconds=seconds)
        self._notify.stopping()
        self.loop.after(seconds, self._halt)
        self._finish_stop()

    def _finish_stop(self) -> None:
        self._done = self._runs.over
        if not self._done and not self._desk.occupancy.total:
            self._halt()

    def _halt(self) -> None:
        """Stop every run, so that it can go on later; what does not stop is killed."""
        if self._kill is None:
            self._kill = self.loop.after(KILL_S, self._kill_all)
            for lane in self._runs.lanes:
                lane.stop()

    def _kill_all(self) -> None:
        for lane in self._runs.lanes:
            if lane.state not in OVER:
                self.log.error("it did not stop and is killed", run=lane.name)
                lane.kill()

    def _reload(self) -> None:
        """New items to the fleet as it is in its file now; what there is finishes where it is."""
        self.log.notice("reloading", fleet=self._options.fleet)
        heard = self._ready and not self._stopping  # Else READY=1 would not be true.
        if heard:
            self._notify.reloading()
        try:
            going = not (self._stopping or self._draining) and self._runs.reload()
            why = "" if going else "a run is being started, or the service ends"
        except LockstepError as error:
            going, why = False, str(error)
        self._reloading = going
        if not going:
            self.log.error(f"the new fleet was refused; the old one goes on: {why}")
            if heard:
                self._notify.ready()

    def drain(self) -> None:
        """As `desk.Service`."""
        self.log.notice("draining", waiting=self._desk.occupancy.total)
        self._draining = True
        for lane in self._runs.lanes:
            if lane.state not in OVER:
                lane.close()
        self._settle()

    def _finish_drain(self) -> None:
        if self._runs.over:
            stuck = [lane.name for lane in self._runs.lanes if lane.state == STUCK]
            stuck += self._lost
            if stuck:
                self.failed(f"runs that could not be finished: {', '.join(stuck)}", EXIT_UNFINISHED)
            self._done = True

    # -- what runs say --------------------------------------------------------------------------

    def changed(self, lane: Lane) -> None:
        """As `lane.Owner`."""
        if lane.state == STUCK:
            why = f"run {lane.name} does not go on: {lane.why}"
            self.log.error(why, run=lane.name)
            self._desk.stuck(lane, why)
            # Whatever it is (a full disk), another new run would meet it, too.
            if lane.exhausted and not self._runs.has_other(lane):
                self.failed(why, lane.exit_code)
        elif lane.state != BACKOFF:
            self.log.info(f"the run is {lane.state}", run=lane.name, waiting=lane.waiting)
        if lane.state == ENDED:
            self._runs.retire()
        self._settle()

    def accepted(self, asked: Asked) -> None:
        """As `lane.Owner`."""
        self._desk.accepted(asked)
        if not self._stopping and not self._draining:
            self._runs.rotate()

    def refused(self, asked: Asked, why: str) -> None:
        """As `lane.Owner`."""
        self._desk.refused(asked, why)

    def answered(self, asked: Asked, lines: bytes) -> None:
        """As `lane.Owner`."""
        self._desk.answered(asked, lines)
        if self._stopping:
            self._finish_stop()

    def homeless(self, asked: list[Asked]) -> None:
        """As `lane.Owner`."""
        for one in asked:
            try:
                if self._done:
                    raise Refusal(self._why or STOPPED_TEXT)
                lane = self.lane()
                if lane.state in OVER:  # It was to take new items, and is the one that ends.
                    raise Refusal(f"no run takes items: {lane.why}")
                lane.submit(one)
            except Refusal as refusal:
                self._desk.refused(one, str(refusal))

    def lost(self, lane: Lane) -> None:
        """As `lane.Owner`."""
        if lane.open:
            ids = [asked.id for asked in lane.open.values()]
            why = f"run {lane.name} is lost: {lane.why}, and with it its unanswered items"
            self.log.error(why, run=lane.name, items=len(ids), first=", ".join(ids[:SHOWN]))
            self._desk.lost(lane, f"{why}: ask again")
            self._lost.append(lane.name)
        else:
            self.log.notice(f"the run is forgotten: {lane.why}", run=lane.name)
        self._runs.drop(lane)
        self._settle()

    def remember(self, asked: list[Asked]) -> None:
        """As `runs.Keeper`."""
        self._desk.remember(asked)

    def forget(self, lane: Lane) -> None:
        """As `runs.Keeper`."""
        self._desk.forget(lane)

    def failed(self, why: str, exit_code: int) -> None:
        """As `runs.Keeper`."""
        self._why, self._code, self._done = why, exit_code, True

    def serves(self, prepared: Prepared) -> None:
        """As `runs.Keeper`."""
        self._desk.record_bytes_max = most = prepared.fleet.record_bytes_max
        self._server.line_bytes_max = most + REQUEST_BYTES
        if self._reloading:
            self._reloading = False
            if self._ready:
                self._notify.ready()
        self._write_info()

    # -- what clients ask -----------------------------------------------------------------------

    def lane(self) -> Lane:
        """As `desk.Service`."""
        if self._stopping or self._draining:
            raise Refusal(f"the service is {self._doing()} and takes nothing new", self._doing())
        lane = self._runs.place()
        if lane is None:
            raise Refusal(f"no run takes items: {self._why}")
        return lane

    def status(self) -> dict[str, Any]:
        """As `desk.Service`."""
        return {
            "state": self._doing(),
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            **status.of_desk(self._desk, self._options),
            **status.of_runs(self._runs),
            "http": self._front.row() if self._front is not None else None,
        }

    # -- what is told ---------------------------------------------------------------------------

    def _doing(self) -> str:
        if self._stopping:
            return "stopping"
        if self._draining:
            return "draining"
        if not self._ready:
            return "starting"
        current = self._runs.current
        return "ready" if current is not None and current.state == LIVE else "recovering"

    def _tick(self) -> None:
        """Whether everybody gets on: only then are we alive for who watches."""
        watchdog_s = self._notify.watchdog_s
        period_s = min(TICK_S_MAX, watchdog_s / TICKS) if watchdog_s else TICK_S_MAX
        self.loop.after(period_s, self._tick)
        self._runs.look()
        moved = [lane.moved() for lane in self._runs.lanes]  # Each is asked.
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
        current = self._runs.current
        with suppress(OSError):  # A full disk must not end what goes on.
            self._state.write(
                {
                    "pid": os.getpid(),
                    "fleet": str(self._options.fleet),
                    "socket": str(self._sockets / CONTROL),
                    "run": str(current.folder) if current is not None else None,
                    "http": self._front.address if self._front is not None else None,
                }
            )


def serve(options: Options, environment: MutableMapping[str, str]) -> int:
    """Serve a fleet until somebody ends it; the exit code.

    Raises:
        LockstepError: it could not begin, or could not go on.
    """
    return Service(options, environment).run()
