"""The horizon: how far tags and the engine may go by what is known now (rules 4 and 5).

A tag may be processed when nothing can come before it any more; the engine may run the steps that
nothing can reach with a request any more. What bounds both is the same: turns that are not over,
tags that are pending, tickets that are due.
"""

from collections.abc import Sequence

from lockstep.engine.actions import Grant
from lockstep.engine.agenda import Agenda
from lockstep.engine.compiled import mypyc_attr
from lockstep.engine.fallback import Fallback
from lockstep.engine.order import Order
from lockstep.engine.reports import Reports
from lockstep.engine.running import Running
from lockstep.engine.tag import INFINITE_STEP, Tag
from lockstep.engine.world import World

NOBODY = -1


@mypyc_attr(allow_interpreted_subclasses=True)  # Tests break its rules one by one.
class Horizon:
    """Looks at the parts of a sequencer; changes none of them.

    Attributes:
        fallbacks: Changes of provider in the record, in order.
    """

    def __init__(
        self,
        world: World,
        order: Order,
        agenda: Agenda,
        running: Running,
        reports: Reports,
        fallbacks: Sequence[Fallback],
    ) -> None:
        self.fallbacks = fallbacks
        self._world = world
        self._order = order
        self._agenda = agenda
        self._running = running
        self._reports = reports
        self._granted: Grant | None = None
        self._highest = 0  # Highest grant ever made.
        self._changed = -1  # Changes of provider up to this step are made.

    # -- tags (rule 4) ------------------------------------------------------------------------

    def next_step(self) -> int:
        """Rule 4's ``next``: the step the engine runs next, as far as we can know.

        A ticket due at a reported step keeps the engine busy: then it is the next unreported
        step. Otherwise the engine jumps to the smallest due.
        """
        due = self._world.requests.smallest_due()
        return INFINITE_STEP if due is None else max(self._reports.last + 1, due)

    def may_process(self, tag: Tag, last: Tag) -> bool:
        """Whether a pending tag may be processed, after the tag ``last``."""
        if tag[0] > self._world.fleet.steps_max:
            return False
        # The engine may still deliver at (next + 1, 0) and a running turn at its low tag;
        # both must lie strictly behind the tag.
        if self._order.live_arrival:
            idle = not self._running and not self._world.requests.open_count()
            if tag[0] > max(self._reports.last + 1, last[0]) and not idle:
                return False
        elif (self.next_step() + 1, 0) <= tag:
            return False
        lowest = self._running.lowest()
        return lowest is None or lowest[0] > tag

    def outside_step(self, last: Tag) -> int:
        """Where an outside event may come (rule 8): the engine cannot have run so far."""
        return max(last[0] + 1, self._highest - self._order.lookahead)

    def next_tag(self) -> int:
        """First step at which a tag may still come, by itself or from outside."""
        return min(self.reach(), self._highest) - self._order.lookahead

    def leave_behind(self, floor: Tag) -> None:
        """Outside events come behind this tag, too, although no grant covered it here."""
        self._highest = max(self._highest, floor[0] + self._order.lookahead)

    # -- the engine (rule 5) ------------------------------------------------------------------

    def reach(self) -> int:
        """First step that a turn or a pending tag could still reach with a request."""
        lowest, tag = self._running.lowest(), self._agenda.first()
        first = INFINITE_STEP if lowest is None else lowest[0][0]
        if tag is not None and tag[0] < first:
            first = tag[0]
        return first + self._order.lookahead

    def grant(self) -> Grant | None:
        """How far the engine may run, if that is not what it was granted last."""
        fleet = self._world.fleet
        limit, after = fleet.steps_max + 1, 0
        if not self._order.live_arrival:
            due, after = self._world.requests.smallest_due(), self._reports.last + 1
            credit = max(after, after if due is None else due) + fleet.schedule.credit
            limit = min(self.reach(), credit, limit)
        if self.fallbacks and (change := self.next_change) is not None:
            limit = min(limit, change.step)
        if self._granted == (limit, after):
            return None
        self._granted = Grant(limit, after)
        self._highest = max(self._highest, limit)
        return self._granted

    def grant_again(self) -> Grant:
        """The grant as it is now, for an inference process that was brought back."""
        self._granted = None
        grant = self.grant()
        assert grant is not None
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
        return self._granted is not None and self.next_step() < self._granted.limit

    def held_by(self) -> int | None:
        """Whom the engine waits for: an agent, `NOBODY` in particular, or None: it does not."""
        step = self.next_step()
        if step == INFINITE_STEP or self._granted is None or step < self._granted.limit:
            return None
        lowest = self._running.lowest()
        return NOBODY if lowest is None else lowest[1]
