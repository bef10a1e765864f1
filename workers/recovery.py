"""Recovery: agents that died by accident are brought back, and nobody notices (rule 10).

A new process repeats the agent's recorded turns, each compared with the record, and then goes on
where the old one was. Nothing of it reaches the sequencer but the turn that was still running;
how often, and after which wait, is `lifecycle`'s to say.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from lockstep.engine import tag as tags
from lockstep.engine.effects import Turn
from lockstep.engine.errors import RunStopped
from lockstep.engine.fleet import Recovery
from lockstep.engine.past import Life, Past, PastTurn
from lockstep.engine.sequencer import Sequencer
from lockstep.workers import lifecycle, view
from lockstep.workers.catch_up import CatchUp
from lockstep.workers.crew import Crew
from lockstep.workers.deaths import how
from lockstep.workers.lifecycle import Restarts
from lockstep.workers.loop import Loop
from lockstep.workers.overdue import Suspect
from lockstep.workers.placement import Placement
from lockstep.workers.reading_back import Enough
from lockstep.workers.view import View

# Of an agent whose run had not come to write anything down.
BEGINNING = PastTurn(0, tags.ORIGIN, b"", 0, 0, None, b"", "")


class AgentRecovery:
    """Every agent's way through `lifecycle.MOVES`. One writer of it: this.

    Args:
        crew: Whose agents they are.
        sequencer: It knows who runs which turn.
        loop: Their processes are watched by it.
        board: Where an agent's state is shown.
        placement: Of the processes on cores.
        limits: Of the fleet.
        read_back: What was recorded so far, as much of it as is enough (`Ledger.read_back`).
        receive: Takes in what an agent has published, by index.
        note: Tells the parent.

    Attributes:
        restarts: Processes that were started again so far.
    """

    def __init__(
        self,
        *,
        crew: Crew,
        sequencer: Sequencer,
        loop: Loop,
        board: View,
        placement: Placement,
        limits: Recovery,
        read_back: Callable[..., Past],
        receive: Callable[[int], None],
        note: Callable[[str], None],
    ) -> None:
        self._crew = crew
        self._seats = crew.seats
        self._sequencer = sequencer
        self._loop = loop
        self._board = board
        self._placement = placement
        self._limits = limits
        self._read_back = read_back
        self._receive = receive
        self._note = note
        self._deaths: dict[int, str] = {}  # Of agents that are not back yet; by index.
        self._limiters: dict[int, Restarts] = {}
        self._played: Past | None = None  # What is played again, and nothing but that.
        self._due: list[int] = []  # To be started again at once, together: one look at the record.
        self.restarts = 0

    # -- beginnings -----------------------------------------------------------------------------

    def watch(self) -> None:
        """Every agent was forked: hear of their ends."""
        for index, seat in enumerate(self._seats):
            if seat.child is not None:
                self._loop.watch(seat.child.descriptor, partial(self.exited, index))

    def resume(self, past: Past) -> None:
        """Instead of `watch`, of a run that goes on: start everybody that has not ended.

        Args:
            past: Of the run, which the sequencer has been through.

        Raises:
            RunStopped: the kernel has no room for so many processes.
        """
        for index, seat in enumerate(self._seats):
            if self._sequencer.world.roster[index].alive:
                seat.life.on("repeat")
                self._fork(index, past)
            else:
                self.buried(index)

    def repeat(self, past: Past, agents: Iterable[int]) -> None:
        """Instead of `resume`, of a run that is only played again: these repeat what is recorded.

        Whoever has ended repeats that, too; a turn that the record has no effect of is left out.

        Args:
            past: Of the run; also after an accident meanwhile.
            agents: By index; of the others there is no process.

        Raises:
            RunStopped: the kernel has no room for so many processes.
        """
        self._played = past
        for index in agents:
            if past.has_effect(index, 0):
                self._seats[index].life.on("repeat")
                self._fork(index, past)

    # -- what the supervisor hears --------------------------------------------------------------

    def taken(self, index: int, turns: list[Turn]) -> list[Turn]:
        """Turns came from an agent that is not simply running: those that take effect.

        Raises:
            Diverged: one is a repetition, and differs from what was recorded.
        """
        seat = self._seats[index]
        if seat.life.state == lifecycle.STARTING and seat.loaded:
            seat.life.on("ready")
            self._board.set_state(index, view.RUNNING)  # It is in its turn 0.
        catch_up = seat.catch_up
        if seat.life.state != lifecycle.RECOVERING or catch_up is None:
            # Of one that is being killed while it repeats nothing is new: it repeats it again.
            return [] if catch_up is not None or seat.life.state == lifecycle.ENDED else turns
        new = [turn for turn in turns if catch_up.ended(turn)]
        wakes = catch_up.wakes()
        if wakes:
            seat.link.send(wakes)
        if catch_up.done and seat.loaded:
            self._caught_up(index, catch_up)
        return new

    def wake(self, index: int, wake: bytes) -> None:
        """An agent is woken that is not simply running."""
        seat = self._seats[index]
        if seat.catch_up is not None:
            seat.catch_up.later(wake)
        elif seat.life.state not in (lifecycle.KILLING, lifecycle.BACKOFF):
            seat.link.send(wake)
        # Else its next process finds it in the record, where it is already.

    def broken(self, index: int, error: Exception) -> None:
        """What came from an agent is not what a healthy one sends, or says that it is none."""
        seat = self._seats[index]
        text = str(error).removeprefix(f"agent {seat.name}: ")
        if seat.child is not None and not seat.ended:
            self._kill(index, "broken", f"was ended: {text}")

    def buried(self, index: int) -> None:
        """The run has no more use for an agent: whatever becomes of its process is no accident."""
        seat = self._seats[index]
        if seat.timer is not None:
            seat.timer.cancel()
        if not seat.ended:
            seat.ended = True
            seat.life.on("buried")
            if seat.child is not None:
                seat.child.kill()  # It waits for events that will never come.
        self._board.set_state(index, view.GONE)

    def exited(self, index: int) -> None:
        """An agent's process has ended.

        Raises:
            RunStopped: by an accident, and that too often.
        """
        seat = self._seats[index]
        assert seat.child is not None
        self._receive(index)  # What it published before it died counts.
        child, seat.child = seat.child, None
        self._loop.forget(child.descriptor)
        status = child.reap()
        if not seat.ended:
            self._died(index, f"(process {child.pid}) {seat.cause or how(status)}")
            return
        if seat.life.state != lifecycle.ENDED:
            seat.life.on("ended")
        seat.life.on("exit")
        self._board.set_state(index, view.GONE)

    def busy(self) -> bool:
        """Whether anybody is still on the way to the present."""
        return any(
            seat.life.state in (lifecycle.RECOVERING, lifecycle.BACKOFF, lifecycle.KILLING)
            for seat in self._seats
        )

    def suspects(self) -> Iterator[Suspect]:
        """Agents that have work (workers/overdue.py): a turn, or what they repeat."""
        busy = dict.fromkeys(self._sequencer.waits_for())
        for index, seat in enumerate(self._seats):
            if seat.life.state == lifecycle.RECOVERING:
                busy[index] = None
        for index in busy:
            seat = self._seats[index]
            if seat.child is not None and not seat.ended:
                overdue = partial(self._kill, index, "overdue")
                yield Suspect(index, seat.child.pid, seat.link.received_bytes, overdue)

    # -- back again -----------------------------------------------------------------------------

    def _kill(self, index: int, event: str, cause: str) -> None:
        seat = self._seats[index]
        if seat.life.state == lifecycle.KILLING and event == "overdue":
            return  # The signal is on its way.
        seat.life.on(event)
        seat.cause = seat.cause or cause
        assert seat.child is not None
        seat.child.kill()

    def _died(self, index: int, death: str) -> None:
        seat = self._seats[index]
        seat.life.on("exit")
        if seat.catch_up is not None:
            # The last turn that arrived for the first time; what came since was a repetition.
            seat.newest, seat.catch_up = seat.catch_up.newest, None
            if index in self._deaths:
                self._note(f"agent {seat.name} {self._deaths[index]}; it did not come back")
        self._deaths[index] = death
        self._board.set_state(index, view.RECOVERING)
        self._wait(index)

    def _wait(self, index: int) -> None:
        """Start it again after the wait that it has earned.

        Raises:
            RunStopped: it died too often.
        """
        seat = self._seats[index]
        limiter = self._limiters.setdefault(index, Restarts(self._limits))
        wait_s = limiter.next(time.monotonic())
        if wait_s is None:
            seat.life.on("exhausted")
            raise RunStopped(
                f"agent {seat.name} {self._deaths[index]}; it was not started again: "
                f"{limiter.exhausted()}"
            )
        seat.timer = self._loop.after(wait_s, partial(self._waited, index))

    def _waited(self, index: int) -> None:
        if not self._due:
            self._loop.after(0.0, self._bring_back)
        self._due.append(index)

    def _bring_back(self) -> None:
        due, self._due = self._due, []
        due = [index for index in due if self._seats[index].life.state == lifecycle.BACKOFF]
        if not due:
            return
        past = self._played
        if past is None:
            past = self._read_back(self._enough(due))
        for index in due:
            self._seats[index].life.on("timer")
            try:
                self._fork(index, past)
            except RunStopped as error:
                self._seats[index].life.on("refused")
                self._deaths[index] += f"; {error}"
                self._wait(index)
            else:
                self.restarts += 1

    def _enough(self, due: list[int]) -> Enough | None:
        """How much of the record these agents need: every turn that they repeat."""
        firsts = {index: self._crew.first_turn(index, self._newest(index)) for index in due}
        if not all(firsts.values()):
            return None
        return lambda past: all(past.reaches(index, first) for index, first in firsts.items())

    def _newest(self, index: int) -> int:
        """Number of the turn that the agent has begun last."""
        return self._sequencer.world.roster[index].turn

    def _fork(self, index: int, past: Past) -> None:
        """A process for an agent that begins its way back.

        Raises:
            RunStopped: the kernel has no room for one more.
        """
        seat, running = self._seats[index], False
        turns: Sequence[PastTurn] = Life(past, index, past.count(index)) or [BEGINNING]
        if self._played is not None:
            turns = Life(past, index, past.ended_count(index))
        else:
            newest = self._newest(index)
            running = len(turns) - 1 == newest and index in self._sequencer.waits_for()
        self._placement.together()  # A child inherits what the supervisor is bound to.
        first = self._crew.restart_agent(index, len(turns) - running)
        seat.catch_up = CatchUp(seat.name, turns, first, running, seat.newest)
        assert seat.child is not None
        self._loop.watch(seat.child.descriptor, partial(self.exited, index))
        self._board.set_state(index, view.RECOVERING)  # With its new pid.
        wakes = seat.catch_up.wakes()
        if wakes:
            seat.link.send(wakes)

    def _caught_up(self, index: int, catch_up: CatchUp) -> None:
        seat = self._seats[index]
        seat.catch_up = None
        seat.life.on("caught_up")
        runs = index in self._sequencer.waits_for()
        self._board.set_state(index, view.RUNNING if runs else view.IDLE)
        death = self._deaths.pop(index, None)
        if death is not None:
            self._note(
                f"agent {seat.name} {death}; brought back, {catch_up.repeated} turns repeated"
            )
