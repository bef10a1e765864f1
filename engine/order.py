"""Order: where a turn takes effect and when a request is due, strict or as things come.

Strict order computes both from logical time (rule 2). Arrival order (rule 11) chooses them when
a turn physically ends and when the engine drains a ticket, and keeps what it chose; a repeat of
such a run is strict order with the kept numbers in place of rule 2's.
"""

from collections.abc import Sequence

from lockstep.engine import tag as tags
from lockstep.engine.effects import Turn
from lockstep.engine.fleet import Fleet
from lockstep.engine.planner import DUE
from lockstep.engine.record import Kind, Record, encode
from lockstep.engine.tag import INFINITE_STEP, Tag

EFFECT = 0  # What an ORDERED record is about (its flags): this, or the planner's `DUE`, `CANCEL`.
NEVER: Tag = (INFINITE_STEP, 0)


class Strict:
    """Rule 2: effects from fuel, dues from tags."""

    live_arrival = False

    def go_on(self) -> None:
        """As `Repeated`; strict order is the same behind a record as in it."""

    def go_live(self) -> None:
        """Likewise."""

    def is_new(self, what: int, ticket: int, step: int) -> bool:
        """Whether a choice of the engine has to be kept; in strict order it has none."""
        return False

    def __init__(self, fleet: Fleet) -> None:
        self.change(fleet, tags.ORIGIN)

    def change(self, fleet: Fleet, floor: Tag) -> None:
        """From a tag on the fleet is another one: what is on its way takes effect there."""
        self._floor = floor
        self._quantum = fleet.schedule.fuel_per_step
        self._delays = [fleet.groups[agent.group].delay for agent in fleet.agents]
        self.lookahead = fleet.schedule.lookahead

    def low(self, agent: int, turn: int, begun: Tag, fuel: int = 0) -> Tag:
        """No effect of a running turn that has burnt ``fuel`` comes before this tag."""
        tag = tags.effect_tag(begun, fuel, self._quantum, self._delays[agent])
        return tag if tag > self._floor else self._floor

    def effect(self, agent: int, turn: Turn, begun: Tag) -> Tag:
        """Where the turn takes effect."""
        return self.low(agent, turn.number, begun, turn.fuel)

    def following(self, tag: Tag) -> Tag:
        """The tag right after another one."""
        return tags.next_microstep(tag)

    def due(self, ticket: int, step: int) -> int:
        """When a ticket is due that takes effect in ``step``."""
        return step + self.lookahead

    def cancel(self, ticket: int, step: int) -> int:
        """When a cancel of it is due."""
        return step + self.lookahead


class Arrival:
    """Rule 11, live: nothing holds anything; the sequencer asks for the next free microstep."""

    live_arrival = True
    lookahead = 0

    def change(self, fleet: Fleet, floor: Tag) -> None:
        """Nothing here depends on the fleet."""

    def go_on(self) -> None:
        """As `Repeated`; there is no record."""

    def go_live(self) -> None:
        """Likewise."""

    def is_new(self, what: int, ticket: int, step: int) -> bool:
        """Every choice of the engine is kept."""
        return True

    def effect(self, agent: int, turn: Turn, begun: Tag) -> Tag:
        """The sequencer puts it at the next free microstep."""
        return NEVER

    def low(self, agent: int, turn: int, begun: Tag, fuel: int = 0) -> Tag:
        """A running turn holds nothing up: its effect goes behind whatever came first."""
        return NEVER

    def following(self, tag: Tag) -> Tag:
        """A step has as many microsteps as turns end in it: none is put off to the next one."""
        return (tag[0], tag[1] + 1)

    def due(self, ticket: int, step: int) -> int:
        """The least; the engine chooses when it drains the ticket."""
        return step

    def cancel(self, ticket: int, step: int) -> int:
        """Likewise."""
        return step


class Repeated:
    """Rule 11, again: strict order with the numbers that were chosen.

    A repeat of a whole run ends where its record does. One that goes on behind it (`go_on`) is
    `Arrival` from `go_live` on, but a recorded choice that was not used yet still wins: it was
    made when exactly what is recorded had happened, so it fits.
    """

    live_arrival = False
    lookahead = 0

    def __init__(self, kept: Sequence[Record]) -> None:
        self._goes_on = False
        self._effects: dict[tuple[int, int], Tag] = {}
        self._dues: dict[int, int] = {}
        self._cancels: dict[int, list[int]] = {}  # A ticket may be cancelled again.
        self._steps: dict[tuple[int, int, int], int] = {}  # Choices of the engine, and how many.
        for record in [record for record in kept if record.kind == Kind.ORDERED]:
            if record.flags == EFFECT:
                micro = int.from_bytes(record.payload, "little")
                self._effects[record.peer, record.id] = (record.item, micro)
                continue
            choice = (record.flags, record.id, record.item)
            self._steps[choice] = self._steps.get(choice, 0) + 1
            if record.flags == DUE:
                self._dues[record.id] = record.item
            else:
                self._cancels.setdefault(record.id, []).append(record.item)

    def change(self, fleet: Fleet, floor: Tag) -> None:
        """As `Arrival`."""

    def go_on(self) -> None:
        """The record is not all: what it does not order is ordered live, behind it."""
        self._goes_on = True

    def go_live(self) -> None:
        """The record is used up."""
        self.live_arrival = True

    def is_new(self, what: int, ticket: int, step: int) -> bool:
        """Whether a choice of the engine has to be kept: it is live, and not in the record."""
        choice = (what, ticket, step)
        if self._steps.get(choice, 0):
            self._steps[choice] -= 1
            return False
        return self.live_arrival

    def low(self, agent: int, turn: int, begun: Tag, fuel: int = 0) -> Tag:
        """Known to the microstep. What was never recorded comes behind everything that was."""
        return self._effects.get((agent, turn), NEVER)

    def effect(self, agent: int, turn: Turn, begun: Tag) -> Tag:
        """As it was chosen."""
        return self.low(agent, turn.number, begun)

    def following(self, tag: Tag) -> Tag:
        """As `Arrival`."""
        return (tag[0], tag[1] + 1)

    def due(self, ticket: int, step: int) -> int:
        """As it was chosen."""
        return self._dues.get(ticket, step if self._goes_on else INFINITE_STEP)

    def cancel(self, ticket: int, step: int) -> int:
        """As it was chosen."""
        steps = self._cancels.get(ticket)
        return steps.pop(0) if steps else step if self._goes_on else INFINITE_STEP


def chosen_effect(agent: int, turn: int, tag: Tag) -> bytes:
    """ORDERED: where a turn took effect."""
    micro = tag[1].to_bytes(4, "little")
    return encode(Kind.ORDERED, micro, flags=EFFECT, id=turn, item=tag[0], peer=agent)


def chosen_step(what: int, ticket: int, step: int) -> bytes:
    """ORDERED: when a ticket (``what`` is `DUE`) or its cancel was due."""
    return encode(Kind.ORDERED, flags=what, id=ticket, item=step)


Order = Strict | Arrival | Repeated


def make(fleet: Fleet, kept: Sequence[Record] | None) -> Order:
    """The order of a run: the fleet's, or the one that was kept."""
    if fleet.schedule.order == "strict":
        return Strict(fleet)
    return Arrival() if kept is None else Repeated(kept)
