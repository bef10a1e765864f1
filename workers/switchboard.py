"""Switchboard: turns in from the agents, wakes out to them, and who watches over their processes.

Agents ring one bell; whoever rang is drained, and each turn that is complete goes to the sequencer.
An agent that is not simply running (it starts, repeats its past, is being ended) is recovery's.
"""

from collections.abc import Callable, Sequence

from lockstep.engine import actions
from lockstep.engine.errors import ProtocolError
from lockstep.engine.fleet import Fleet
from lockstep.engine.past import Past
from lockstep.engine.record import encode_wake
from lockstep.engine.sequencer import Sequencer
from lockstep.shm import RingError
from lockstep.workers import lifecycle, view
from lockstep.workers.agent.spec import AgentSpec
from lockstep.workers.crew import Crew
from lockstep.workers.loop import Loop
from lockstep.workers.overdue import Overdue
from lockstep.workers.placement import Placement
from lockstep.workers.recovery import AgentRecovery
from lockstep.workers.seat import Accident
from lockstep.workers.stalls import Stalls
from lockstep.workers.view import View


class Switchboard:
    """One writer: the supervisor.

    Args:
        crew: Whose agents they are.
        sequencer: Gets turns, and knows who runs one.
        loop: Of the supervisor.
        fleet: That runs.
        board: Where states are shown.
        stalls: Hears what turns burn.
        read_back: What was recorded so far, as much of it as is enough (`Ledger.read_back`).
        note: Tells the parent.

    Attributes:
        placement: Where processes run; whoever forks says `together` first.
        overdue: Who is alive but silent.
        recovery: Agents that died by accident.
    """

    def __init__(
        self,
        *,
        crew: Crew,
        sequencer: Sequencer,
        loop: Loop,
        fleet: Fleet,
        board: View,
        stalls: Stalls,
        read_back: Callable[..., Past],
        note: Callable[[str], None],
    ) -> None:
        self._crew, self._sequencer, self._loop = crew, sequencer, loop
        self._board, self._stalls = board, stalls
        self.placement = Placement(crew.seats)
        self.overdue = Overdue(loop, fleet.recovery.overdue_s)
        self.recovery = AgentRecovery(
            crew=crew,
            sequencer=sequencer,
            loop=loop,
            board=board,
            placement=self.placement,
            limits=fleet.recovery,
            read_back=read_back,
            receive=self.receive,
            note=note,
        )
        self.overdue.watch(self.recovery.suspects)

    def start(
        self,
        specs: list[AgentSpec],
        past: Past | None,
        perturb: int = 0,
        only: Sequence[int] | None = None,
    ) -> None:
        """Fork the agents and listen to them.

        Args:
            specs: By index.
            past: What they have to repeat; None: nothing.
            perturb: As in `Job`.
            only: These, and only what is recorded of them (a run that is played again).
        """
        if past is None or not past.entries:
            self._crew.start_agents(specs, perturb)
            self.recovery.watch()
        else:
            self._crew.prepare_agents(specs)
            if only is None:
                self.recovery.resume(past)
            else:
                self.recovery.repeat(past, only)
        self._loop.watch(self._crew.rung.bell.fileno(), self._rung)
        self.overdue.arm()

    def receive(self, index: int) -> None:
        """Take in what an agent has published."""
        seat = self._crew.seats[index]
        try:
            turns = seat.receive()
        except (Accident, ProtocolError, RingError) as error:
            self.recovery.broken(index, error)
            return
        if seat.life.state != lifecycle.RUNNING:
            turns = self.recovery.taken(index, turns)
        if seat.progress is not None:
            (number, fuel), seat.progress = seat.progress, None
            self._sequencer.fuel_published(index, number, fuel)
        for turn in turns:
            self._sequencer.turn_ended(index, turn)
            self._stalls.ended(index, turn.fuel)
            self._board.set_state(index, view.IDLE)

    def wake(self, wake: actions.Wake) -> None:
        """Begin an agent's turn."""
        index, (step, micro) = wake.agent, wake.tag
        data = encode_wake(wake.turn, step, micro, wake.events, wake.count)
        if self._sequencer.lone_turn():
            self.placement.alone(index)
        else:
            self.placement.together()
        self.armed()
        seat = self._crew.seats[index]
        if seat.life.state != lifecycle.RUNNING:
            self.recovery.wake(index, data)
            return
        try:
            seat.link.send(data)
        except RingError as error:
            self.recovery.broken(index, error)
        self._board.set_state(index, view.RUNNING)

    def armed(self) -> None:
        """Somebody has work: see that it is looked at."""
        if self.overdue.idle:
            self.overdue.arm()

    def _rung(self) -> None:
        for index in self._crew.rung.take():
            self.receive(index)
