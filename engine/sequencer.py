"""The sequencer: logical time, tickets, order. Pure.

Records and step reports go in, actions come out (engine/actions.py). It keeps the pending tags,
decides when a tag may be processed (rule 4), how far the engine may run (rule 5) and when the
run ends (rules 6 and 16). Nothing here reads a clock, a pid or an arrival order: whatever order
turns and reports physically come in, the history is one.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from lockstep.engine import actions
from lockstep.engine import tag as tags
from lockstep.engine.effects import Turn
from lockstep.engine.errors import LockstepBug
from lockstep.engine.fleet import Fleet
from lockstep.engine.history import step_entry
from lockstep.engine.items import InputItem
from lockstep.engine.mailbox import Event
from lockstep.engine.tag import INFINITE_STEP, Tag
from lockstep.engine.wire import Answer, StepReport
from lockstep.engine.world import World


@dataclass(slots=True)
class _Pending:
    """What waits for one tag."""

    turns: dict[int, Turn] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    timers: list[tuple[int, Event]] = field(default_factory=list)
    admit: bool = False
    close: bool = False


class Sequencer:
    """Order of use: `start`, then `turn_ended` and `step_reported` as they come, `pump` after."""

    def __init__(self, fleet: Fleet, inputs: Sequence[InputItem]) -> None:
        self.world = World(fleet, inputs, self._set_timer)
        self._fleet = fleet
        self._schedule = fleet.schedule
        self._heap: list[Tag] = []
        self._pending: dict[Tag, _Pending] = {}
        self._running: dict[int, tuple[Tag, Tag]] = {}  # Agent -> (begun, low effect tag).
        self._reported = -1  # Last step the engine reported.
        self._reports: list[StepReport] = []  # Reported, not yet in the history.
        self._tokens: dict[int, list[int]] = {}  # Ticket -> token ids, until it is answered.
        self._last: Tag = (-1, 0)  # Last processed tag.
        self._granted: actions.Grant | None = None
        self._closed = False
        self.rows = 0  # Tokens of the last reported step: for display.
        self.finished = False

    # -- what comes in ------------------------------------------------------------------------

    def start(self) -> None:
        """Open tag (0, 0): every agent runs its turn 0; items wait for it."""
        for agent in range(len(self.world.agents)):
            self._running[agent] = (tags.ORIGIN, tags.next_microstep(tags.ORIGIN))
        self._at(tags.ORIGIN).admit = True

    def turn_ended(self, agent: int, turn: Turn) -> None:
        """An agent's turn is complete: it takes effect at the tag its fuel says (rule 2).

        Raises:
            LockstepBug: the agent runs no turn, or another one.
        """
        state = self.world.agents[agent]
        if agent not in self._running or state.turn != turn.number:
            raise LockstepBug(
                f"agent {agent} ended turn {turn.number}, expected turn {state.turn} "
                f"({'running' if agent in self._running else 'not running'})"
            )
        begun, _ = self._running.pop(agent)
        self._at(self._effect_tag(agent, begun, turn.fuel)).turns[agent] = turn

    def fuel_published(self, agent: int, turn: int, fuel: int) -> None:
        """A running turn has burnt at least this much: its effects cannot come earlier."""
        if agent in self._running and self.world.agents[agent].turn == turn:
            begun, low = self._running[agent]
            self._running[agent] = (begun, max(low, self._effect_tag(agent, begun, fuel)))

    def step_reported(self, report: StepReport) -> None:
        """The engine executed a step. What ended in it is delivered at (step + 1, 0) (rule 1).

        Raises:
            LockstepBug: steps are reported out of order.
        """
        if report.step <= self._reported:
            raise LockstepBug(f"step {report.step} was reported after step {self._reported}")
        self._reported = report.step
        self.rows = len(report.tokens)
        self._reports.append(report)
        for ticket, token in report.tokens:
            self._tokens.setdefault(ticket, []).append(token)
        if report.answers:
            self._at((report.step + 1, 0)).answers.extend(report.answers)

    # -- what goes out ------------------------------------------------------------------------

    def pump(self) -> list[actions.Action]:
        """Process every tag that may be processed; what to do, in order."""
        while not self.finished:
            if self._over_steps_max():
                self._stop(f"steps_max = {self._fleet.steps_max} is reached")
            elif self._heap and self._may_process(self._heap[0]):
                self._process(heapq.heappop(self._heap))
            elif self._heap or self._running or self._next_step() < INFINITE_STEP:
                break
            elif self._closed:
                self._finish()
            else:
                self._closed = True
                self._at(tags.next_microstep(self._last)).close = True
        if not self.finished:
            self._grant()
        done, self.world.actions = self.world.actions, []
        return done

    def waits_for(self) -> list[int]:
        """Agents whose turn is not over, physically: who may hold the horizon."""
        return list(self._running)

    @property
    def step(self) -> int:
        """Last step the engine reported, -1 before the first."""
        return self._reported

    @property
    def tag(self) -> Tag:
        """Last processed tag."""
        return self._last

    # -- rule 4 and 5 -------------------------------------------------------------------------

    def _next_step(self) -> int:
        """Rule 4's ``next``: the step the engine runs next, as far as we can know.

        A ticket due at a reported step keeps the engine busy: then it is the next unreported
        step. Otherwise the engine jumps to the smallest due.
        """
        due = self.world.requests.smallest_due()
        return INFINITE_STEP if due is None else max(self._reported + 1, due)

    def _may_process(self, tag: Tag) -> bool:
        # The engine may still deliver at (next + 1, 0) and a running turn at its low tag;
        # both must lie strictly behind the tag.
        if (self._next_step() + 1, 0) <= tag or tag[0] > self._fleet.steps_max:
            return False
        return all(low > tag for _, low in self._running.values())

    def _horizon(self) -> int:
        """First step that a turn or a pending tag could still reach with a request."""
        lows = [low[0] for _, low in self._running.values()]
        if self._heap:
            lows.append(self._heap[0][0])
        return min(lows, default=INFINITE_STEP) + self._schedule.lookahead

    def _grant(self) -> None:
        due = self.world.requests.smallest_due()
        after = self._reported + 1
        credit = max(after, after if due is None else due) + self._schedule.credit
        limit = min(self._horizon(), credit, self._fleet.steps_max + 1)
        grant = actions.Grant(limit, after)
        if grant != self._granted:
            self._granted = grant
            self.world.actions.append(grant)

    # -- one tag ------------------------------------------------------------------------------

    def _process(self, tag: Tag) -> None:
        pending = self._pending.pop(tag)
        self._flush_steps(tag[0])
        world = self.world
        world.open(tag)
        if tag == tags.ORIGIN:
            world.begin()
        world.effects(pending.turns)
        world.completions(pending.answers)
        world.timers(pending.timers)
        if pending.admit:
            world.admit()
        if pending.close:
            world.close_all()
        woken = world.wake()
        self._last = tag
        world.actions.append(actions.Append(world.close()))
        self._show_output()
        for agent, wake in woken:
            self._running[agent] = (tag, tags.next_microstep(tag))
            world.actions.append(wake)
        if world.items.may_admit():
            self._at(tags.next_microstep(tag)).admit = True
        self._check_limits()

    def _flush_steps(self, before: int) -> None:
        """Steps enter the history after all tags with a step <= theirs (rule 7)."""
        while self._reports and self._reports[0].step < before:
            report = self._reports.pop(0)
            finished = []
            counts = self.world.counts
            counts.steps += 1
            for answer in report.answers:
                agent, ordinal = self._owner(answer.ticket)
                tokens = self._tokens.pop(answer.ticket, [])
                counts.tokens_in += answer.prompt_tokens
                if answer.failed:
                    counts.requests_failed += 1
                    counts.request_failure = counts.request_failure or answer.reason()
                counts.tokens_out += len(tokens)
                finished.append((agent, ordinal, tokens))
            self.world.actions.append(actions.Append(step_entry(report, finished)))

    def _owner(self, number: int) -> tuple[int, int]:
        # A report enters the history before the tag that books its answers, so the ticket is
        # still unanswered here.
        ticket = self.world.requests.find(number)
        return ticket.agent, ticket.ordinal

    def _show_output(self) -> None:
        for line in self.world.items.take_lines():
            self.world.actions.append(actions.Output(line))

    # -- ends ---------------------------------------------------------------------------------

    def _check_limits(self) -> None:
        counts, fleet = self.world.counts, self._fleet
        if counts.turns > fleet.turns_max:
            self._stop(f"turns_max = {fleet.turns_max} is passed")
        elif counts.messages > fleet.messages_max:
            self._stop(f"messages_max = {fleet.messages_max} is passed")

    def _over_steps_max(self) -> bool:
        """Nothing can happen any more at a step the fleet allows."""
        bound = self._fleet.steps_max
        if self._running or (self._heap and self._heap[0][0] <= bound):
            return False
        first = min(self._heap[0][0] if self._heap else INFINITE_STEP, self._next_step())
        return bound < first < INFINITE_STEP

    def _finish(self) -> None:
        stalled = self.world.items.in_flight() or len(self.world.items) > self.world.items.admitted
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

    def _at(self, tag: Tag) -> _Pending:
        if tag <= self._last:
            raise LockstepBug(f"tag {tags.text(tag)} is pending after {tags.text(self._last)}")
        pending = self._pending.get(tag)
        if pending is None:
            pending = self._pending[tag] = _Pending()
            heapq.heappush(self._heap, tag)
        return pending

    def _effect_tag(self, agent: int, begun: Tag, fuel: int) -> Tag:
        delay = self._fleet.groups[self._fleet.agents[agent].group].delay
        return tags.effect_tag(begun, fuel, self._schedule.fuel_per_step, delay)

    def _set_timer(self, tag: Tag, agent: int, event: Event) -> None:
        self._at(tag).timers.append((agent, event))
