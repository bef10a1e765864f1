"""The ending: whether a run is over, and why (rules 6 and 16)."""

from lockstep.engine.agenda import Agenda
from lockstep.engine.compiled import mypyc_attr
from lockstep.engine.horizon import Horizon
from lockstep.engine.outside import Arrivals
from lockstep.engine.running import Running
from lockstep.engine.tag import INFINITE_STEP, Tag
from lockstep.engine.world import World


@mypyc_attr(allow_interpreted_subclasses=True)  # Tests break its rules one by one.
class Ending:
    """Looks at the parts of a sequencer; changes none of them."""

    def __init__(
        self,
        world: World,
        agenda: Agenda,
        running: Running,
        arrivals: Arrivals,
        horizon: Horizon,
    ) -> None:
        self._world = world
        self._agenda = agenda
        self._running = running
        self._arrivals = arrivals
        self._horizon = horizon

    def quiet(self) -> bool:
        """Nothing runs, pends or is unanswered. Outside events do not count: a second execution
        has them from the start."""
        if self._running or self._world.requests.open_count():
            return False
        return self._agenda.only_outside()

    def held(self) -> bool:
        """Whether the run must not end yet: something may still come from outside."""
        waits = self._arrivals.holding() or self._world.tools.book.waiting()
        return waits and not self._world.post.parked

    def stuck(self, tag: Tag | None) -> str:
        """Why nothing can happen any more while no turn runs; "": something can.

        Args:
            tag: The first that is pending.
        """
        if self._over_steps_max(tag):
            return self.steps_max_reached()
        return "the record of the order ends here" if self._record_ends(tag) else ""

    def limit_passed(self) -> str:
        """Why the run stops behind the tag that was just processed; "": it goes on."""
        counts, fleet = self._world.counts, self._world.fleet
        if self._world.cancelled:
            return self._world.cancelled
        if counts.turns > fleet.turns_max:
            return f"turns_max = {fleet.turns_max} is passed"
        if counts.messages > fleet.messages_max:
            return f"messages_max = {fleet.messages_max} is passed"
        return ""

    def steps_max_reached(self) -> str:
        """The reason of a run that came to its last step."""
        return f"steps_max = {self._world.fleet.steps_max} is reached"

    def stalled(self) -> bool:
        """Whether items are left over in a run that ends by itself."""
        book = self._world.desk.book
        return bool(book.in_flight()) or len(book) > book.admitted

    def _over_steps_max(self, tag: Tag | None) -> bool:
        """Nothing can happen any more at a step the fleet allows."""
        bound = self._world.fleet.steps_max
        if tag is not None and tag[0] <= bound:
            return False
        first = min(tag[0] if tag is not None else INFINITE_STEP, self._horizon.next_step())
        return bound < first < INFINITE_STEP

    def _record_ends(self, tag: Tag | None) -> bool:
        """A repeat in arrival order knows no more: what is left was never ordered."""
        asked = self._world.requests.open_count() > 0
        unknown = asked if tag is None else tag[0] == INFINITE_STEP
        return unknown and self._horizon.next_step() == INFINITE_STEP
