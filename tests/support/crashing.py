"""Crash mode of the simulator: everybody is lost at some moment, or one agent, or the engine.

What is left of a lost supervisor is its journal, without a tail that was never promised: nothing
that somebody has seen hangs on it. A fresh sequencer, engine and agents are brought back by the
record alone and go on under other physical timings. A lost agent or engine alone is brought back
the same way, and the others do not notice.

Repeat one case:  python tests/support/crashing.py FLEET_SEED PHYSICAL_SEED
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

from audit import Audit, difference
from fleetmaker import ScriptedAgent, make_fleet
from simslab import SimSlab
from simulator import Engine, Simulation, one_history, simulate

from lockstep.engine import actions
from lockstep.engine.digest import Digest
from lockstep.engine.effects import Turn
from lockstep.engine.history import step_entry
from lockstep.engine.order import EFFECT
from lockstep.engine.outside import Outside, What
from lockstep.engine.past import Past, same_turn
from lockstep.engine.plan import DUE
from lockstep.engine.record import Kind, decode, decode_at
from lockstep.engine.replay import Replay
from lockstep.engine.restore import restore
from lockstep.engine.stepper import Stepper
from lockstep.engine.wire import StepReport

ACCIDENTS_MAX = 8  # Of one run.


class Crashing(Simulation):
    """A live run with accidents.

    Args:
        fleet_seed: As `Simulation`.
        physical_seed: Likewise; the accidents are physical, too.
        replay_type: Of which the mutants are subclasses.
        mutant: Other types, as `Simulation` takes them.
    """

    def __init__(
        self,
        fleet_seed: int,
        physical_seed: int,
        replay_type: type[Replay] = Replay,
        **mutant: Any,
    ) -> None:
        super().__init__(fleet_seed, physical_seed, **mutant)
        self._replay_type = replay_type
        self._stepper_type: type[Stepper] = mutant.get("stepper_type", Stepper)
        self._journal: list[tuple[bool, bytes]] = []  # (whether it is history, body).
        self._promised = 0  # So much of it somebody has seen something of.
        self._reports: list[StepReport] = []  # Steps the sequencer knows, since the last loss.
        self._grant: actions.Grant | None = None
        self._ended: dict[int, Turn] = {}  # Agent -> the turn that ended last.
        self._flying: list[StepReport] = []  # Published, and not taken yet.
        self._chance = self._rng.choice([0.003, 0.01, 0.05, 0.2])
        self.accidents: list[str] = []

    def choices(self) -> list[tuple[int, ...]]:
        """What was numbered as it came: outside events, effects, tickets; each can be only once."""
        kept = [decode_at(data, 0)[0] for data in self._kept]
        effects = [
            (EFFECT, r.id, r.peer) for r in kept if (r.kind, r.flags) == (Kind.ORDERED, EFFECT)
        ]
        tickets = [(DUE, r.id) for r in kept if (r.kind, r.flags) == (Kind.ORDERED, DUE)]
        return effects + tickets + [(-1, r.id) for r in kept if r.kind == Kind.OUTSIDE]

    def disturb(self) -> None:
        """An accident, now and then."""
        if len(self.accidents) < ACCIDENTS_MAX and self._rng.random() < self._chance:
            what = self._rng.choice(["all", "all", "agent", "engine"])
            self.accidents.append(what)
            if what == "all":
                self._lose_all()
            elif what == "agent":
                self._lose_agent(self._rng.randrange(len(self._agents)))
            else:
                self._lose_engine()

    # -- what has to be remembered -------------------------------------------------------------

    def _perform(self, done: list[actions.Action]) -> None:
        for action in done:
            self._book(action)
        super()._perform(done)

    def _book(self, action: actions.Action) -> None:
        match action:
            case actions.Append():
                self._journal.append((True, action.entry.body))
            case actions.Keep():
                self._journal.append((False, action.record))
            case actions.Grant():
                self._grant = action
            case actions.Output() | actions.CallTool():
                self._promised = len(self._journal)

    def _came(self, what: What, source: int, payload: bytes, flags: int = 0) -> None:
        super()._came(what, source, payload, flags)
        if self._rng.random() < 0.5:  # Whoever sent it is told that it is recorded.
            self._promised = len(self._journal)

    def _turn_ended(self, process: ScriptedAgent, turn: Turn) -> None:
        if process is self._agents[process.index]:
            self._ended[process.index] = turn
        super()._turn_ended(process, turn)

    def _publish(self, engine: Engine, report: StepReport) -> None:
        self._flying.append(report)
        super()._publish(engine, report)

    def _step_reported(self, engine: Engine, report: StepReport) -> None:
        if engine is self._engine and report in self._flying:
            self._flying.remove(report)
            self._reports.append(report)
            super()._step_reported(engine, report)

    # -- everything is lost --------------------------------------------------------------------

    def _lose_all(self) -> None:
        lost = self._rng.choice([0, 0, 1, 1, 2, 3, 10, 100])
        del self._journal[max(self._promised, len(self._journal) - lost) :]
        entries = [body for is_history, body in self._journal if is_history]
        kept = [body for is_history, body in self._journal if not is_history]
        shown, self._outputs = self._outputs, []
        self._queue, self._tools, self._flying, self._reports = [], {}, [], []
        self._entries, self._digest, self._last_ticket = [], Digest(b""), 0
        self._kept, self._wires = kept, dict.fromkeys(self._wires, self._now)
        past = Past(entries, kept)
        fleet, items = make_fleet(self._fleet_seed)
        self._sequencer = type(self._sequencer)(fleet, items, kept)
        replay = self._replay_type(self._sequencer, past)
        for action in replay.run():
            self._book_again(action)
        assert self._entries == entries
        assert self._outputs == shown, "a line was shown, and what it follows from is lost"
        self._engine = self._restored(past)
        for agent in range(len(self._agents)):
            self._bring_back(agent, past, agent in replay.running)
        self._perform(replay.beyond)
        for call in replay.open_calls():
            self._call_tool(call)
        self._reopen_sources(past.outside)
        self._pump()

    def _book_again(self, action: actions.Action) -> None:
        """What the sequencer said in the record: nothing of it is done."""
        match action:
            case actions.Append():
                self._digest.add(action.entry)
                self._entries.append(action.entry.body)
            case actions.Issue():
                self._last_ticket = action.ticket.number
            case actions.Output():
                self._outputs.append(action.line)
            case actions.Keep():
                assert action.record in self._kept
            case actions.Grant() | actions.Finish():
                raise AssertionError(f"{action} of a run that has not ended, in its record")

    def _reopen_sources(self, events: list[Outside]) -> None:
        closed = [event.source for event in events if event.what == What.CLOSED]
        for index, source in enumerate(self.fleet.sources):
            if index not in closed:
                what = What.EVENT if source.to else What.ITEM
                self._feed(index, what, self._rng.randint(0, 3))

    # -- one party is lost ---------------------------------------------------------------------

    def _lose_agent(self, agent: int) -> None:
        self._bring_back(agent, Past(self._entries), agent in self._sequencer.waits_for())

    def _bring_back(self, agent: int, past: Past, runs: bool) -> None:
        """Another process is given the recorded turns, compared, and the one that is not over."""
        process = ScriptedAgent(self.fleet, agent, self._fleet_seed)
        self._agents[agent] = process
        for turn in past.turns(agent):
            if turn.outcome is None and runs:
                break
            again = process.run(list(decode(turn.events)))
            found = same_turn(turn, again)
            assert not found, found
            if turn.outcome is None:  # It ended before it was lost, and that counts.
                assert again == self._ended.get(agent)
        if runs:
            # Turn 0 of an agent is in no record before the first entry.
            self._start_turn(agent, list(decode(turn.events)) if past.entries else [])

    def _lose_engine(self) -> None:
        lost, slab = self._engine, self._left_behind()
        self._break_off(lost)
        counted = list(self._flying)  # What it has published counts.
        if lost.plan is None and self._rng.random() < 0.5:
            counted = counted[:-1]  # It was publishing it, and had begun no other.
        if slab is None and self._rng.random() < 0.5:
            counted = []
        for report in counted:
            if self._finish is None:
                self._step_reported(lost, report)
        if self._finish is None:
            # What was reported and is not in the history yet lies behind it.
            last = Past(self._entries).last_step
            entries = [step_entry(r, []).body for r in self._reports if r.step > last]
            past = Past([*self._entries, *entries], self._kept)
            self._engine = self._restored(past, slab)
            self._flying = []
            if self._grant is not None:
                self._engine.stepper.grant(self._grant.limit, self._grant.applied)
            self._turn_engine()

    def _left_behind(self) -> SimSlab | None:
        """Slots outlive their process, or are lost with a device.

        In arrival order they are not used: the step that was broken off is planned anew, from
        tickets that may be due otherwise, and its copies would miss what the old plan overwrote.
        """
        if self.fleet.schedule.order == "arrival" or self._rng.random() < 0.3:
            return None
        return self._engine.slab

    def _break_off(self, engine: Engine) -> None:
        """What it executes it has executed in part; nobody has seen anything of it."""
        if engine.plan is not None:
            actions = engine.begun(engine.plan)
            for _ in itertools.islice(actions, self._rng.choice([0, 1, 2, 3, 5, 100])):
                pass

    def _restored(self, past: Past, slab: SimSlab | None = None) -> Engine:
        engine = Engine(self.fleet, self._stepper_type, repeats=False, slab=slab)
        engine.restore(restore(past, self.fleet, slab_lost=slab is None))
        return engine


def survive(fleet_seed: int, physical_seed: int, **mutant: Any) -> list[str]:
    """One run with accidents that must not show; which there were.

    Raises:
        AssertionError, LockstepError: they show.
    """
    simulation = Crashing(fleet_seed, physical_seed, **mutant)
    run = simulation.run()
    if one_history(fleet_seed):
        again = simulate(fleet_seed, 0)
    else:
        chosen = list(simulation.choices())
        assert len(dict.fromkeys(chosen)) == len(chosen), "something was chosen twice"
        again = simulate(fleet_seed, physical_seed + 1, run)
    Audit(fleet_seed, run).check()
    assert run.entries == again.entries, difference(run, again)
    assert run.outputs == again.outputs
    return simulation.accidents


if __name__ == "__main__":
    print(*survive(*map(int, sys.argv[1:])))
