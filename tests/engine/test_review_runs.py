"""Whole runs the simulator does not try by itself: batched, cut short, and counted by message."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
import simulator
from fleetmaker import ScriptedAgent, make_fleet
from simulator import Run, Simulation, one_history, simulate

from lockstep.engine import actions
from lockstep.engine.effects import Turn
from lockstep.engine.record import Kind, Outcome, Record, decode, encode_record
from lockstep.engine.sequencer import Sequencer

LINE_UP = 20  # Bits of a numbered SEND's id that count inside its turn.


class Batched(Simulation):
    """Takes several things in before it pumps, as the supervisor does."""

    _owed = False

    def _pump(self) -> None:
        if self._rng.random() < 0.3:
            self._pump_now()
        elif not self._owed:
            self._owed = True
            self._put(self._now + self._rng.choice([0.0, 0.0, 0.5, 5.0]), self._pump_later)

    def _pump_later(self) -> None:
        self._owed = False
        self._pump_now()

    def _pump_now(self) -> None:
        if self._finish is None:
            super()._pump()


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_what_came_in_together_may_be_taken_in_together(first: int) -> None:
    for seed in range(first, first + 20):
        if one_history(seed):
            expected = simulate(seed, 0)
            again = Batched(seed, 1).run()
        else:  # What comes from outside comes in batches, too.
            expected = Batched(seed, 1).run()
            again = simulate(seed, 2, expected)
        assert again.entries == expected.entries, seed
        assert again.outputs == expected.outputs, seed


class Logged(Sequencer):
    """Remembers everything that it wanted done, in order."""

    log: tuple[actions.Action, ...] = ()

    def pump(self) -> list[actions.Action]:
        done = super().pump()
        self.log += tuple(done)
        return done


def entries(log: Sequence[actions.Action]) -> list[bytes]:
    return [action.entry.body for action in log if isinstance(action, actions.Append)]


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_the_record_of_a_run_that_was_killed_repeats_what_it_had(first: int) -> None:
    for seed in range(first, first + 20):
        live = Simulation(seed, 0, Logged)
        live.run()
        assert isinstance(live._sequencer, Logged)
        log = live._sequencer.log
        cut = log[: random.Random(seed).randrange(len(log))]
        kept = [action.record for action in cut if isinstance(action, actions.Keep)]
        again = Simulation(seed, 1, Logged, recorded=None if one_history(seed) else kept)
        try:
            again.run()
        except AssertionError as error:  # It waits for what is in no record.
            assert "deadlock" in str(error), seed
        assert isinstance(again._sequencer, Logged)
        had = entries(cut)
        assert entries(again._sequencer.log)[: len(had)] == had, seed


class Numbered(ScriptedAgent):
    """Gives each message that is no call or reply an id of its own."""

    def run(self, events: list[Record]) -> Turn:
        turn = super().run(events)
        records = [
            record._replace(id=(turn.number + 1) << LINE_UP | number)
            if record.kind == Kind.SEND and not record.flags
            else record
            for number, record in enumerate(decode(turn.records))
        ]
        return turn._replace(records=b"".join(map(encode_record, records)))


@pytest.mark.parametrize("first", range(0, 90, 30))
def test_every_message_arrives_once_or_comes_back_once(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator, "ScriptedAgent", Numbered)
    for seed in range(first, first + 30):
        run = Simulation(seed, 0).run()
        seen = Counter(arrivals(run))
        assert all(count == 1 for count in seen.values()), (seed, seen.most_common(3))
        if run.state == "finished":
            lost = [message for message in direct(seed, run) if message not in seen]
            assert lost == [], seed


def arrivals(run: Run) -> list[tuple[int, int, int]]:
    """(sender, receiver, id) of every numbered message that an agent got, or got back."""
    found = []
    for turn in records(run, Kind.TURN):
        for event in decode(turn.payload):
            if event.kind == Kind.MESSAGE and not event.flags:
                found.append((event.peer, turn.peer, event.id))
            elif event.kind == Kind.UNDELIVERED and not event.flags:
                found.append((turn.peer, event.peer, event.id))
    return found


def direct(seed: int, run: Run) -> list[tuple[int, int, int]]:
    """Likewise, of every message to one agent whose sender lived to the end."""
    agents = len(make_fleet(seed)[0].agents)
    ended = {record.peer for record in records(run, Kind.FAILED)}
    turns = [turn for turn in records(run, Kind.EFFECT) if turn.flags <= Outcome.RETURNED]
    ended |= {turn.peer for turn in turns if turn.flags == Outcome.RETURNED}
    sent = [(turn.peer, record) for turn in turns for record in decode(turn.payload)]
    return [
        (sender, record.peer, record.id)
        for sender, record in sent
        if sender not in ended
        and record.kind == Kind.SEND
        and not record.flags
        and record.peer < agents
    ]


def records(run: Run, kind: Kind) -> list[Record]:
    return [record for entry in run.entries for record in decode(entry) if record.kind == kind]
