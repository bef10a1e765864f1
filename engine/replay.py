"""Replay: a sequencer is brought to the present by a record, entry by entry, each compared. Pure.

It is fed what the record has (the effect of each turn as soon as its wake came out, each step's
report as soon as the tickets in it were given) and makes the history again by its own rules. When
physical things come in has never mattered, so that feeding early is right; only what was decided
by arrival is repeated by its numbers (rules 8 and 11). Behind the record the sequencer is live.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

from lockstep.engine import actions
from lockstep.engine import tag as tags
from lockstep.engine.compare import first_difference
from lockstep.engine.errors import Diverged, LockstepBug
from lockstep.engine.fleet import Fleet
from lockstep.engine.outside import What
from lockstep.engine.past import Past, behind, place_of
from lockstep.engine.record import HEADER, Kind
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.tag import Tag
from lockstep.engine.wire import StepReport

# An action that follows on the entry of its tag; the others come before it.
_AFTER = (actions.Output, actions.Wake, actions.Finish)


class Replay:
    """One sequencer and the record it repeats.

    Args:
        sequencer: A fresh one, made with ``recorded=past.kept``. It is started here.
        past: What was recorded. To leave the record early for good (a fork), cut it first
            (`Past.before`) and make the sequencer of what is left.
        compare: Refuse an entry that is not the recorded one. Without it only their number counts.
        changes: Of a fork and what it was forked from: (step, fleet from that step on), rising.
        live: Behind the record the run is live; else it is the repetition of one (a fork that is
            verified), and everything that was kept of that was given to the sequencer.

    Attributes:
        beyond: After `run`: what the sequencer wants done first, live. In order, grant included.
        running: After `run`: agents whose running turn began in the record and has no effect
            there: they have to run it (again).
    """

    def __init__(
        self,
        sequencer: Sequencer,
        past: Past,
        compare: bool = True,
        changes: Sequence[tuple[int, Fleet]] = (),
        live: bool = True,
    ) -> None:
        self._sequencer = sequencer
        self._changes = changes
        self._live = live
        self._past = past
        self._compare = compare
        self._done = 0  # Entries that came out again.
        self._over = False  # An entry came out behind the record.
        self._held: list[actions.Action] = []  # Of the tag whose entry has not come out yet.
        self._calls: dict[int, actions.CallTool] = {}
        self._issued: dict[int, list[actions.Issue | actions.Revoke]] = {}
        self.beyond: list[actions.Action] = []
        self.running: list[int] = []

    def run(self, until: Tag | None = None) -> Iterator[actions.Action]:
        """Repeat the record; what the sequencer said in it, in order, no grants.

        Nothing of it has to be done again, except by who keeps another record of it: `Keep` and
        `Append` actions are in the journal already, lines in the output file, turns run.

        Args:
            until: Stop before it: entries of tags below it and of steps below its step come out.
                (Step ``s`` comes before the tag ``(s + 1, 0)``.) The sequencer must not be used
                to go on then, since what was kept for later is in it.

        Raises:
            Diverged: an entry is not the recorded one, or the record goes on where the sequencer
                does not; the tag and both sides are named.
            JournalCorrupt: the record cannot be read.
        """
        sequencer = self._sequencer
        whole = self._past if until is None else self._past.before(until)
        floor = behind(whole.entries)
        try:
            begun = False
            for step, fleet in self._changes:
                self._past = whole.before((step, 0))
                yield from self._stage((step, 0), begun)
                yield from self._taken(sequencer.change(fleet, (step, 0)))
                floor, begun = max(floor, (step, 0)), True
            self._past = whole
            yield from self._stage(floor, begun)
            if whole.ended and not sequencer.finished:
                sequencer.reach_steps_max()
            # Who computes the next step begins on the provider that the record has for it.
            sequencer.horizon.changed(sequencer.step + 1)
            yield from self._taken(sequencer.go_live(floor, self._live))
        except LockstepBug as error:
            place = tags.text(sequencer.tag)
            raise Diverged(f"behind {place} the record does not fit together: {error}") from error
        self._check_end()
        if not self._over:
            yield from self._held  # What was kept, and nothing has come of it.
            self._held = []
        self.running = sorted(sequencer.waits_for())
        if until is None:
            self.beyond = self._held + sequencer.pump()

    def _stage(self, floor: Tag, begun: bool) -> Iterator[actions.Action]:
        """Repeat what `_past` has, up to its end; what it does not have comes at ``floor``."""
        self._sequencer.follow(_last_tag(self._past.entries), self._live)
        if not begun:
            self._sequencer.start()
        yield from self._repeat(floor)

    def _check_end(self) -> None:
        """The whole record came out.

        Raises:
            Diverged: it did not.
        """
        entries = self._past.entries
        if self._done < len(entries):
            place = tags.text(place_of(entries[self._done]))
            raise Diverged(
                f"the record goes on at {place}, but the sequencer waits behind "
                f"{tags.text(self._sequencer.tag)}: something that was recorded is missing"
            )

    def open_calls(self) -> list[actions.CallTool]:
        """Tool calls of the record that were neither stopped nor answered: to be made again."""
        answered = {e.source: None for e in self._past.outside if e.what == What.TOOL}
        return [call for number, call in self._calls.items() if number not in answered]

    def open_tickets(self) -> list[actions.Issue | actions.Revoke]:
        """Tickets of the record that no recorded step answered, and their cancels, in order."""
        return list(chain.from_iterable(self._issued.values()))

    def _repeat(self, floor: Tag) -> Iterator[actions.Action]:
        """Feed and pump until nothing more comes of it."""
        sequencer = self._sequencer
        reached = sequencer.step
        steps = (report for report in self._past.steps() if report.step > reached)
        begun = [(agent, sequencer.world.roster[agent].turn) for agent in sequencer.waits_for()]
        report = next(steps, None)
        first = True  # Events from outside may lie behind a cut where nobody's turn runs.
        while True:
            for agent, turn in begun:
                self._feed(agent, turn, floor)
            fed = bool(begun)
            issued = sequencer.world.requests.issued
            while report is not None and _last_ticket(report) <= issued:
                sequencer.step_reported(report)
                for answer in report.answers:
                    self._issued.pop(answer.ticket, None)
                report, fed = next(steps, None), True
            if not fed and not first:
                return
            begun, first = [], False
            for action in self._taken(sequencer.pump()):
                if isinstance(action, actions.Wake):
                    begun.append((action.agent, action.turn))
                yield action

    def _feed(self, agent: int, turn: int, floor: Tag) -> None:
        done = self._past.effect(agent, turn)
        if done is None:
            self._sequencer.not_before(agent, floor)
        else:
            self._sequencer.turn_ended(agent, done)

    def _taken(self, done: list[actions.Action]) -> Iterator[actions.Action]:
        """Actions whose entry came out, behind those that were held back for it."""
        for action in done:
            if isinstance(action, actions.Append) and self._done == len(self._past.entries):
                self._over = True  # A limit ends a run in the tag that passes it.
            if isinstance(action, actions.Append) and not self._over:
                self._check(action.entry.body)
                yield from self._held
                self._held = []
                yield action
            elif isinstance(action, _AFTER) and not self._over:
                yield action
            else:
                self._note(action)
                self._held.append(action)

    def _note(self, action: actions.Action) -> None:
        """Remember what has begun, until it is over."""
        match action:
            case actions.CallTool():
                self._calls[action.call] = action
            case actions.StopTool():
                self._calls.pop(action.call, None)
            case actions.Issue():
                self._issued[action.ticket.number] = [action]
            case actions.Revoke() if action.ticket in self._issued:
                self._issued[action.ticket].append(action)

    def _check(self, body: bytes) -> None:
        """The next entry is the recorded one.

        Raises:
            Diverged: it is not.
        """
        recorded = self._past.entries[self._done]
        self._done += 1
        if self._compare and body != recorded:
            found = first_difference([recorded], [body])
            assert found is not None
            raise Diverged(f"at {found.tag}: recorded is {found.left}, found {found.right}")


def _last_tag(entries: Sequence[bytes]) -> Tag:
    """The last tag that the record has an entry of."""
    for body in reversed(entries):
        if HEADER.unpack_from(body)[1] == Kind.TAG:
            return place_of(body)
    return (-1, 0)


def _last_ticket(report: StepReport) -> int:
    """The greatest ticket that a step answers, gives a token or takes in on arrival."""
    tickets = [ticket for ticket, _ in report.tokens]
    tickets += [answer.ticket for answer in report.answers]
    tickets += [ticket for _, ticket, _ in report.ordered]
    return max(tickets, default=0)
