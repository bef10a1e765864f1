"""The sequencer: logical time, tickets, order. Pure.

Records and step reports go in, actions come out (engine/actions.py). It keeps the pending tags,
decides when a tag may be processed (rule 4), how far the engine may run (rule 5) and when the
run ends (rules 6 and 16). Nothing here reads a clock, a pid or an arrival order: whatever order
turns and reports physically come in, the history is one. The exceptions are the ones a person
asks for: outside events (rule 8) and arrival order (rule 11) are numbered as they come, and kept.
"""

from collections.abc import Sequence

from lockstep.engine import actions
from lockstep.engine import order as orders
from lockstep.engine import tag as tags
from lockstep.engine.agenda import Agenda, Pending
from lockstep.engine.compiled import mypyc_attr
from lockstep.engine.effects import Turn
from lockstep.engine.errors import Diverged, LockstepBug
from lockstep.engine.fallback import Fallback, fallbacks
from lockstep.engine.fleet import STEPS_MAX, Fleet
from lockstep.engine.items import InputItem
from lockstep.engine.mailbox import Event
from lockstep.engine.outside import ITEMS, Arrivals, Outside, What, from_record
from lockstep.engine.record import Kind, decode_at
from lockstep.engine.reports import Reports
from lockstep.engine.running import Running
from lockstep.engine.tag import INFINITE_STEP, Tag
from lockstep.engine.wire import StepReport
from lockstep.engine.world import World

NOBODY = -1


@mypyc_attr(allow_interpreted_subclasses=True)  # Tests and benchmarks watch it from outside.
class Sequencer:
    """Order of use: `start`, then `turn_ended` and `step_reported` as they come, `pump` after.

    Args:
        fleet: What runs.
        inputs: Its items; sources may add more.
        recorded: What the journal of a run kept besides its history, to repeat that run; None:
            the run is live.

    Attributes:
        fallbacks: Changes of provider in the record, in order.
    """

    def __init__(
        self,
        fleet: Fleet,
        inputs: Sequence[InputItem],
        recorded: Sequence[bytes] | None = None,
    ) -> None:
        kept = None if recorded is None else [decode_at(data, 0)[0] for data in recorded]
        self._order = orders.make(fleet, kept)
        self.world = World(fleet, inputs, self._set_timer, self._order)
        self._fleet = fleet
        self._schedule = fleet.schedule
        self._agenda = Agenda(self.world.desk.book.open)
        self._running = Running()
        self._reports = Reports(self.world.requests.find)
        self._last: Tag = (-1, 0)  # Last processed tag.
        self._granted: actions.Grant | None = None
        self._highest = 0  # Highest grant ever sent.
        self._arrivals = Arrivals(fleet.sources)
        self._target: Tag = orders.NEVER  # No tag behind it is processed.
        self._floor: Tag = tags.ORIGIN  # What the record does not have comes here or later.
        self._changed = -1  # Changes of provider up to this step are made.
        self._closed = False
        self.finished = False
        # Outside events of the run to repeat are pending from the start.
        events = []
        for data, record in zip(recorded or (), kept or (), strict=True):
            self._keep(data)
            if record.kind == Kind.OUTSIDE:
                events.append(event := from_record(record))
                self._arrivals.repeat(event)
                self._agenda.add_outside(event)
        self.fallbacks = fallbacks(events)

    # -- what comes in ------------------------------------------------------------------------

    def start(self) -> None:
        """Open tag (0, 0): every agent runs its turn 0; items wait for it."""
        for agent in range(len(self.world.roster)):
            self._begin_turn(agent, 0, tags.ORIGIN)
        self._at(tags.ORIGIN).admit = True

    def turn_ended(self, agent: int, turn: Turn) -> None:
        """An agent's turn is complete: it takes effect at the tag its fuel says (rule 2).

        Raises:
            LockstepBug: the agent runs no turn, or another one.
            Diverged: it would have taken effect where the record has no effect of it.
        """
        state = self.world.roster[agent]
        if agent not in self._running or state.turn != turn.number:
            raise LockstepBug(
                f"agent {agent} ended turn {turn.number}, expected turn {state.turn} "
                f"({'running' if agent in self._running else 'not running'})"
            )
        tag = self._order.effect(agent, turn, self._running.end(agent))
        if self._order.live_arrival and tag == orders.NEVER:
            tag = self._next_free()
            self._keep(orders.chosen_effect(agent, turn.number, tag))
        if tag < self._floor:
            raise Diverged(
                f"turn {turn.number} of agent {self.world.roster.names[agent]} takes effect at "
                f"{tags.text(tag)} by its {turn.fuel} fuel, but the record came to "
                f"{tags.text(self._floor)} without it"
            )
        self._at(tag).turns[agent] = turn

    def fuel_published(self, agent: int, turn: int, fuel: int) -> None:
        """A running turn has burnt at least this much: its effects cannot come earlier."""
        if agent in self._running and self.world.roster[agent].turn == turn:
            begun = self._running.begun(agent)
            self._running.raise_low(agent, self._order.low(agent, turn, begun, fuel))

    def step_reported(self, report: StepReport) -> None:
        """The engine executed a step. What ended in it is delivered at (step + 1, 0) (rule 1).

        Raises:
            LockstepBug: steps are reported out of order.
        """
        if report.step <= self._reports.last:
            raise LockstepBug(f"step {report.step} was reported after step {self._reports.last}")
        self._reports.add(report)
        if report.answers:
            self._at((report.step + 1, 0)).answers.extend(report.answers)
        for choice in report.ordered:
            if self._order.is_new(*choice):
                self._keep(orders.chosen_step(*choice))

    def outside(self, what: What, source: int, payload: bytes = b"", flags: int = 0) -> Outside:
        """Something came in from outside (rule 8): it gets its number and its tag. Live only.

        The record of it is the next `Keep`; the event takes effect at its tag.
        """
        if self._order.live_arrival:
            tag = self._next_free()
        else:
            tag = (max(self._last[0] + 1, self._highest - self._order.lookahead), 0)
        event = self._arrivals.number(tag, what, source, flags, payload)
        self._agenda.add_outside(event)
        self._keep(event.record())
        return event

    # -- a record that is followed, and then left (engine/replay.py) --------------------------

    def follow(self, last: Tag, live: bool = True) -> None:
        """Repeat a record that ends with the tag ``last``: process no tag behind it, yet.

        Args:
            last: Of the record, or of this part of it.
            live: The run goes on live behind it; else it repeats what was kept all the way.
        """
        if live:
            self._order.go_on()
        self._target = last

    def change(self, fleet: Fleet, floor: Tag) -> list[actions.Action]:
        """From ``floor`` on the fleet is another one (engine/changes.py): a fork.

        Returns:
            As `go_live`.
        """
        self._fleet, self._schedule = fleet, fleet.schedule
        self._order.change(fleet, floor)
        self.world.change(fleet)
        return self._leave_behind(floor)

    def not_before(self, agent: int, tag: Tag) -> None:
        """The record shows that the agent's running turn takes effect at this tag or later."""
        self._running.raise_low(agent, tag)

    def reach_steps_max(self) -> None:
        """The record shows the end, and nothing but this leads there.

        Steps between the last tag and the limit ran, but are no history: they cannot be repeated.
        """
        self._stop(self._steps_max_reached())

    def go_live(self, floor: Tag, live: bool = True) -> list[actions.Action]:
        """The record is used up, whatever is not in it comes at ``floor`` or later.

        Args:
            floor: Behind the record.
            live: As of `follow`.

        Returns:
            What is still in the record: steps whose tags it shows to be closed.
        """
        if live:
            self._order.go_live()
        self._target = orders.NEVER
        return self._leave_behind(floor)

    def _leave_behind(self, floor: Tag) -> list[actions.Action]:
        """What comes from now on comes at ``floor`` or later: the steps before it are closed."""
        self._floor = floor
        # Outside events come behind these steps, too, although no grant covered them here.
        self._highest = max(self._highest, floor[0] + self._order.lookahead)
        self._flush_steps(floor[0])
        done, self.world.actions = self.world.actions, []
        return done

    # -- what goes out ------------------------------------------------------------------------

    def pump(self) -> list[actions.Action]:
        """Process every tag that may be processed; what to do, in order."""
        while not self.finished and self._last < self._target:
            tag = self._agenda.first()
            if self._running or not self._ends(tag):
                if tag is None or not self._may_process(tag):
                    break
                self._process(tag)
        if not self.finished and self._target == orders.NEVER:
            self._grant()
        done, self.world.actions = self.world.actions, []
        return done

    def settle(self) -> list[actions.Action]:
        """Entries of steps before which no tag can come any more, though none has come behind them.

        The history is the same without: they would be in it when the next tag is processed. Not in
        arrival order, where what a step will be followed by is chosen later, and not under a bound
        of steps, where those behind the last tag are none (`_end`).
        """
        bounded = self._fleet.steps_max < STEPS_MAX
        if self.finished or self._target != orders.NEVER or self._order.live_arrival or bounded:
            return []
        # A later outside event comes at this step or behind it (`outside`).
        before = self._highest - self._order.lookahead
        lowest, tag = self._running.lowest(), self._agenda.first()
        if lowest is not None:
            before = min(before, lowest[0][0])
        if tag is not None:
            before = min(before, tag[0])
        self._flush_steps(before)
        done, self.world.actions = self.world.actions, []
        return done

    def waits_for(self) -> list[int]:
        """Agents whose turn is not over, physically: who may hold the horizon."""
        return list(self._running)

    def lone_turn(self) -> bool:
        """Whether one agent's turn is all that goes on: nothing is asked of the model, either."""
        return len(self._running) == 1 and not self.world.requests.open_count()

    def held_by(self) -> int | None:
        """Whom the engine waits for: an agent, `NOBODY` in particular, or None: it does not."""
        step = self._next_step()
        if step == INFINITE_STEP or self._granted is None or step < self._granted.limit:
            return None
        lowest = self._running.lowest()
        return NOBODY if lowest is None else lowest[1]

    # -- an inference process that has to be brought back (workers/engine_recovery.py) --------

    def reported_ahead(self) -> list[bytes]:
        """Entries of steps that were reported, but whose tags are not closed yet, in order."""
        return self._reports.ahead()

    def grant_again(self) -> actions.Grant:
        """The grant as it is now, all that came in taken into account."""
        self._granted = None
        self._grant()
        grant = self.world.actions.pop()
        assert isinstance(grant, actions.Grant)
        return grant

    @property
    def next_change(self) -> Fallback | None:
        """The first change of provider in the record that is not made: it bounds every grant."""
        return next((each for each in self.fallbacks if each.step > self._changed), None)

    def changed(self, step: int) -> None:
        """Changes of provider up to this step are made: it is computed elsewhere now."""
        self._changed = step

    def engine_may_run(self) -> bool:
        """Whether a step is asked for and granted, as far as we know."""
        return self._granted is not None and self._next_step() < self._granted.limit

    @property
    def rows(self) -> int:
        """Tokens of the last reported step: for display."""
        return self._reports.rows

    @property
    def step(self) -> int:
        """Last step the engine reported, -1 before the first."""
        return self._reports.last

    @property
    def tag(self) -> Tag:
        """Last processed tag."""
        return self._last

    @property
    def regenerative(self) -> bool:
        """Whether the run follows from its identity alone: nothing came in from outside."""
        return self._arrivals.count == 0 and self._schedule.order == "strict"

    # -- rule 4 and 5 -------------------------------------------------------------------------

    def _next_step(self) -> int:
        """Rule 4's ``next``: the step the engine runs next, as far as we can know.

        A ticket due at a reported step keeps the engine busy: then it is the next unreported
        step. Otherwise the engine jumps to the smallest due.
        """
        due = self.world.requests.smallest_due()
        return INFINITE_STEP if due is None else max(self._reports.last + 1, due)

    def _may_process(self, tag: Tag) -> bool:
        if tag[0] > self._fleet.steps_max:
            return False
        # The engine may still deliver at (next + 1, 0) and a running turn at its low tag;
        # both must lie strictly behind the tag.
        if self._order.live_arrival:
            idle = not self._running and not self.world.requests.open_count()
            if tag[0] > max(self._reports.last + 1, self._last[0]) and not idle:
                return False
        elif (self._next_step() + 1, 0) <= tag:
            return False
        lowest = self._running.lowest()
        return lowest is None or lowest[0] > tag

    def _horizon(self) -> int:
        """First step that a turn or a pending tag could still reach with a request."""
        lowest, tag = self._running.lowest(), self._agenda.first()
        first = INFINITE_STEP if lowest is None else lowest[0][0]
        if tag is not None and tag[0] < first:
            first = tag[0]
        return first + self._order.lookahead

    def _grant(self) -> None:
        if self._order.live_arrival:
            grant = actions.Grant(self._fleet.steps_max + 1, 0)
        else:
            due = self.world.requests.smallest_due()
            after = self._reports.last + 1
            credit = max(after, after if due is None else due) + self._schedule.credit
            limit = min(self._horizon(), credit, self._fleet.steps_max + 1)
            if self.fallbacks and (change := self.next_change) is not None:
                limit = min(limit, change.step)
            grant = actions.Grant(limit, after)
        if grant != self._granted:
            self._granted = grant
            self._highest = max(self._highest, grant.limit)
            self.world.actions.append(grant)

    # -- one tag ------------------------------------------------------------------------------

    def _process(self, tag: Tag) -> None:
        pending = self._agenda.take(tag)
        self._flush_steps(tag[0])
        world = self.world
        world.open(tag)
        if tag == tags.ORIGIN:
            world.begin()
        world.effects(pending.turns, pending.retry, pending.forced)
        if pending.answers:
            world.completions(pending.answers)
        if pending.timers:
            world.timers(pending.timers)
        if pending.outside or pending.overdue:
            self._intrude(pending)
        if pending.admit:
            self._admit(tag)
        if pending.close:
            world.close_all()
        woken = world.wake()
        self._last = tag
        world.actions.append(actions.Append(world.close()))
        self._show_output()
        for wake in woken:
            self._begin_turn(wake.agent, wake.turn, tag)
            world.actions.append(wake)
        self._follow_up(self._order.following(tag))
        self._check_limits()

    def _intrude(self, pending: Pending) -> None:
        """What the run did not make itself: outside events, then deadlines that are over."""
        self.world.outside(pending.outside)
        for event in pending.outside:
            self._arrivals.took(event)
            if event.what in ITEMS:
                pending.admit = True
        for item in pending.overdue:
            self.world.desk.cancel(
                item, f"not finished {self._schedule.item_steps_max} steps after it entered"
            )

    def _admit(self, tag: Tag) -> None:
        steps = self._schedule.item_steps_max
        for item in self.world.desk.admit():
            if steps:
                self._agenda.add_deadline((tag[0] + steps, 0), item)

    def _follow_up(self, following: Tag) -> None:
        """What this tag makes happen at the next microstep."""
        if self.world.desk.book.may_admit():
            self._at(following).admit = True
        if self.world.post.freed:
            self.world.post.freed = False
            self._at(following).retry = True

    def _begin_turn(self, agent: int, turn: int, tag: Tag) -> None:
        self._running.begin(agent, tag, self._order.low(agent, turn, tag))

    def _flush_steps(self, before: int) -> None:
        for entry in self._reports.take(before, self.world.counts):
            self.world.actions.append(actions.Append(entry))

    def _show_output(self) -> None:
        for line in self.world.desk.book.take_lines():
            self.world.actions.append(actions.Output(line))

    # -- ends ---------------------------------------------------------------------------------

    def _ends(self, tag: Tag | None) -> bool:
        """No turn runs: whether that is the end, or the beginning of it, and is dealt with."""
        if self._quiet() and not self._holding():
            self._wind_up()
        elif self._over_steps_max(tag):
            self._stop(self._steps_max_reached())
        elif self._record_ends(tag):
            self._stop("the record of the order ends here")
        else:
            return False
        return True

    def _quiet(self) -> bool:
        """Nothing runs, pends or is unanswered. Outside events do not count: a second execution
        has them from the start."""
        if self._running or self.world.requests.open_count():
            return False
        return self._agenda.only_outside()

    def _holding(self) -> bool:
        """Whether the run must not end yet: something may still come from outside."""
        waits = self._arrivals.holding() or self.world.tools.book.waiting()
        return waits and not self.world.post.parked

    def _wind_up(self) -> None:
        """Nothing can happen by itself any more: free a circle of senders, say CLOSE, or end."""
        post, following = self.world.post, self._order.following(self._last)
        if post.parked and self._schedule.mailbox_cycle == "stop":
            self._stop(f"agents wait for room with one another: {post.circle()}")
        elif post.parked:
            self._at(following).forced = True
        elif self._closed:
            self._finish()
        else:
            self._closed = True
            self._at(following).close = True

    def _check_limits(self) -> None:
        counts, fleet = self.world.counts, self._fleet
        if self.world.cancelled:
            self._stop(self.world.cancelled)
        elif counts.turns > fleet.turns_max:
            self._stop(f"turns_max = {fleet.turns_max} is passed")
        elif counts.messages > fleet.messages_max:
            self._stop(f"messages_max = {fleet.messages_max} is passed")

    def _over_steps_max(self, tag: Tag | None) -> bool:
        """Nothing can happen any more at a step the fleet allows."""
        bound = self._fleet.steps_max
        if tag is not None and tag[0] <= bound:
            return False
        first = min(tag[0] if tag is not None else INFINITE_STEP, self._next_step())
        return bound < first < INFINITE_STEP

    def _steps_max_reached(self) -> str:
        return f"steps_max = {self._fleet.steps_max} is reached"

    def _record_ends(self, tag: Tag | None) -> bool:
        """A repeat in arrival order knows no more: what is left was never ordered."""
        asked = self.world.requests.open_count() > 0
        unknown = asked if tag is None else tag[0] == INFINITE_STEP
        return unknown and self._next_step() == INFINITE_STEP

    def _finish(self) -> None:
        book = self.world.desk.book
        stalled = book.in_flight() or len(book) > book.admitted
        self._end("finished", "stalled" if stalled else "")

    def _stop(self, reason: str) -> None:
        self._end("stopped", reason)

    def _end(self, state: str, reason: str) -> None:
        # Steps beyond the last tag are history only if every run has them: at a natural end all
        # are reported; at a limit some may be on their way.
        self._flush_steps(INFINITE_STEP if state == "finished" else self._last[0])
        self.world.open(tags.next_microstep(self._last))
        self.world.stop(reason)
        self.world.actions.append(actions.Append(self.world.close()))
        self._show_output()
        self.world.actions.append(actions.Finish(state, reason))
        self.finished = True

    # -- parts --------------------------------------------------------------------------------

    def _keep(self, record: bytes) -> None:
        self.world.actions.append(actions.Keep(record))

    def _at(self, tag: Tag) -> Pending:
        if tag <= self._last:
            raise LockstepBug(f"tag {tags.text(tag)} is pending after {tags.text(self._last)}")
        return self._agenda.at(tag)

    def _next_free(self) -> Tag:
        """The next free microstep of the current step (rule 11)."""
        tag = max(self._order.following(self._last), (self._reports.last + 1, 0))
        while not self._agenda.free(tag):
            tag = self._order.following(tag)
        return tag

    def _set_timer(self, tag: Tag, agent: int, event: Event) -> None:
        self._at(tag).timers.append((agent, event))
