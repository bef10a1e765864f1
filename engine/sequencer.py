"""The sequencer: logical time, tickets, order. Pure.

Records and step reports go in, actions come out (engine/actions.py). It puts what came where it
takes effect and processes one tag after the other: when that may be, and how far the engine may
run, the horizon says; when the run ends, the ending. Nothing here reads a clock, a pid or an
arrival order: whatever order turns and reports physically come in, the history is one. The
exceptions are the ones a person asks for: outside events (rule 8) and arrival order (rule 11) are
numbered as they come, and kept.
"""

from collections.abc import Sequence

from lockstep.engine import actions
from lockstep.engine import order as orders
from lockstep.engine import tag as tags
from lockstep.engine.agenda import Agenda, Pending
from lockstep.engine.compiled import mypyc_attr
from lockstep.engine.effects import Turn
from lockstep.engine.ending import Ending
from lockstep.engine.errors import Diverged, LockstepBug
from lockstep.engine.fallback import fallbacks
from lockstep.engine.fleet import STEPS_MAX, Fleet
from lockstep.engine.horizon import Horizon
from lockstep.engine.items import InputItem
from lockstep.engine.mailbox import Event
from lockstep.engine.outside import ITEMS, Arrivals, Outside, What, checked, from_record
from lockstep.engine.record import Kind, decode_at
from lockstep.engine.reports import Reports
from lockstep.engine.running import Running
from lockstep.engine.tag import INFINITE_STEP, Tag
from lockstep.engine.wire import StepReport
from lockstep.engine.world import World


@mypyc_attr(allow_interpreted_subclasses=True)  # Tests and benchmarks watch it from outside.
class Sequencer:
    """Order of use: `start`, then `turn_ended` and `step_reported` as they come, `pump` after.

    Args:
        fleet: What runs.
        inputs: Its items; sources may add more.
        recorded: What the journal of a run kept besides its history, to repeat that run; None:
            the run is live.

    Attributes:
        world: What is so at the last processed tag.
        horizon: How far tags and the engine may go.
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
        self._agenda = Agenda(self.world.desk.book.open)
        self._running = Running()
        self._reports = Reports(self.world.requests.find)
        self._last: Tag = (-1, 0)  # Last processed tag.
        self._arrivals = Arrivals(fleet.sources)
        self._target: Tag = orders.NEVER  # No tag behind it is processed.
        self._floor: Tag = tags.ORIGIN  # What the record does not have comes here or later.
        self._closed = False
        self.finished = False
        # Outside events of the run to repeat are pending from the start.
        events = []
        for data, record in zip(recorded or (), kept or (), strict=True):
            self._keep(data)
            if record.kind == Kind.OUTSIDE:
                events.append(event := checked(from_record(record), fleet))
                self._arrivals.repeat(event)
                self._agenda.add_outside(event)
        self.horizon = Horizon(
            self.world, self._order, self._agenda, self._running, self._reports, fallbacks(events)
        )
        self._ending = Ending(self.world, self._agenda, self._running, self._arrivals, self.horizon)

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
        state = self.world.roster.agents[agent]
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
            tag = (self.horizon.outside_step(self._last), 0)
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
        self._end("stopped", self._ending.steps_max_reached())

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
        self.horizon.leave_behind(floor)
        self._flush_steps(floor[0])
        done, self.world.actions = self.world.actions, []
        return done

    # -- what goes out ------------------------------------------------------------------------

    def pump(self) -> list[actions.Action]:
        """Process every tag that may be processed; what to do, in order."""
        while not self.finished and self._last < self._target:
            tag = self._agenda.first()
            if self._running or not self._ends(tag):
                if tag is None or not self.horizon.may_process(tag, self._last):
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
        bounded = self.world.fleet.steps_max < STEPS_MAX
        if self.finished or self._target != orders.NEVER or self._order.live_arrival or bounded:
            return []
        self._flush_steps(self.horizon.next_tag())
        done, self.world.actions = self.world.actions, []
        return done

    def waits_for(self) -> list[int]:
        """Agents whose turn is not over, physically: who may hold the horizon."""
        return list(self._running)

    def lone_turn(self) -> bool:
        """Whether one agent's turn is all that goes on: nothing is asked of the model, either."""
        return len(self._running) == 1 and not self.world.requests.open_count()

    def reported_ahead(self) -> list[bytes]:
        """Entries of steps that were reported, but whose tags are not closed yet, in order."""
        return self._reports.ahead()

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
        """Whether the run follows from its identity alone: nothing from outside had a say.

        Not even by silence: that a tool had not answered, or a source had brought nothing, when the
        run went on or ended is a matter of their speed.
        """
        fleet = self.world.fleet
        outside = self._arrivals.count or self.world.tools.book.issued or fleet.sources
        return not outside and fleet.schedule.order == "strict"

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
            world.tickets.answered(pending.answers)
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
        if reason := self._ending.limit_passed():
            self._end("stopped", reason)

    def _intrude(self, pending: Pending) -> None:
        """What the run did not make itself: outside events, then deadlines that are over."""
        self.world.outside(pending.outside)
        for event in pending.outside:
            self._arrivals.took(event)
            if event.what in ITEMS:
                pending.admit = True
        steps = self.world.fleet.schedule.item_steps_max
        for item in pending.overdue:
            self.world.desk.cancel(item, f"not finished {steps} steps after it entered")

    def _admit(self, tag: Tag) -> None:
        steps = self.world.fleet.schedule.item_steps_max
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

    def _grant(self) -> None:
        if (grant := self.horizon.grant()) is not None:
            self.world.actions.append(grant)

    def _show_output(self) -> None:
        for line in self.world.desk.book.take_lines():
            self.world.actions.append(actions.Output(line))

    # -- ends ---------------------------------------------------------------------------------

    def _ends(self, tag: Tag | None) -> bool:
        """No turn runs: whether that is the end, or the beginning of it, and is dealt with."""
        if self._ending.quiet() and not self._ending.held():
            self._wind_up()
        elif reason := self._ending.stuck(tag):
            self._end("stopped", reason)
        else:
            return False
        return True

    def _wind_up(self) -> None:
        """Nothing can happen by itself any more: free a circle of senders, say CLOSE, or end."""
        post, following = self.world.post, self._order.following(self._last)
        if post.parked and self.world.fleet.schedule.mailbox_cycle == "stop":
            self._end("stopped", f"agents wait for room with one another: {post.circle()}")
        elif post.parked:
            self._at(following).forced = True
        elif self._closed:
            self._end("finished", "stalled" if self._ending.stalled() else "")
        else:
            self._closed = True
            self._at(following).close = True

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
