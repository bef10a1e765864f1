"""Where things lie in a record: wakes and effects by agent, steps, failures. One pass. Pure.

Of the newest part of a record an agent is known from the first turn on whose wake is in it: what
it did in the turn before that is passed over.
"""

from collections.abc import Sequence
from typing import NamedTuple

from lockstep.engine.errors import JournalCorrupt
from lockstep.engine.record import HEADER, HEADER_BYTES, Kind, aligned

# Plain numbers: every record of a history is compared with them.
_TURN, _EFFECT, _FAILED = int(Kind.TURN), int(Kind.EFFECT), int(Kind.FAILED)


class Place(NamedTuple):
    """Where a record lies: the entry's number among those given, and the offset in it."""

    entry: int
    offset: int


class Lived:
    """Where an agent's turns lie.

    Attributes:
        first: Number of the first turn whose wake is here.
        wakes: From that one on.
        effects: Likewise; at most one less.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.wakes: list[Place] = []
        self.effects: list[Place] = []


class Index:
    """Places of wakes and effects by agent, and of steps; one pass over everything.

    Args:
        entries: Bodies of entries.
        skipped: How many lie before them, None: they are the whole.

    Attributes:
        lives: By agent.
        failures: The FAILED record of an agent.
        steps: Numbers of entries.

    Raises:
        JournalCorrupt: an entry is not what an entry is.
    """

    def __init__(self, entries: Sequence[bytes], skipped: int | None) -> None:
        self.lives: dict[int, Lived] = {}
        self.failures: dict[int, Place] = {}
        self.steps: list[int] = []
        self._whole, self._before = skipped is None, skipped or 0
        self._half: dict[int, int] = {}  # Agent -> a turn whose effect is here, and not its wake.
        for number, body in enumerate(entries):
            first = header(body, 0, self._before + number)[1]
            if first == Kind.STEP:
                self.steps.append(number)
            elif first == Kind.TAG:
                self._tag(body, number)
            else:
                what = f"begins with a record of kind {first}, not TAG or STEP"
                raise corrupt(self._before + number, what)

    def _tag(self, body: bytes, number: int) -> None:
        offset, end, unpack = 0, len(body), HEADER.unpack_from
        while offset < end:
            left = end - offset
            if left < HEADER_BYTES:
                header(body, offset, self._before + number)  # It says what is wrong.
            size, kind, _, id, _, peer, _ = unpack(body, offset)
            padded = (size + 7) & ~7  # `aligned`, and `header`, without the calls.
            if size < HEADER_BYTES or padded > left:
                header(body, offset, self._before + number)
            if kind == _TURN:
                self._wake(peer, id, Place(number, offset))
            elif kind == _EFFECT:
                self._effect(peer, id, Place(number, offset))
            elif kind == _FAILED:
                self.failures[peer] = Place(number, offset)
            offset += padded

    def _wake(self, agent: int, turn: int, place: Place) -> None:
        life = self.lives.get(agent)
        if life is None:
            expected = 0 if self._whole else self._half.get(agent, turn - 1) + 1
            self._check(agent, turn, expected, place)
            life = self.lives[agent] = Lived(turn)
        else:
            self._check(agent, turn, life.first + len(life.wakes), place)
        life.wakes.append(place)

    def _effect(self, agent: int, turn: int, place: Place) -> None:
        life = self.lives.get(agent)
        if life is None:
            if self._whole or agent in self._half:
                raise self._not_begun(agent, turn, place)
            self._half[agent] = turn
            return
        self._check(agent, turn, life.first + len(life.effects), place)
        life.effects.append(place)
        if len(life.effects) > len(life.wakes):
            raise self._not_begun(agent, turn, place)

    def _check(self, agent: int, turn: int, expected: int, place: Place) -> None:
        if turn != expected:
            what = f"agent {agent} has turn {turn}, expected turn {expected}"
            raise corrupt(self._before + place.entry, what)

    def _not_begun(self, agent: int, turn: int, place: Place) -> JournalCorrupt:
        what = f"agent {agent} has an effect of a turn {turn} not begun"
        return corrupt(self._before + place.entry, what)


def header(data: bytes, offset: int, entry: int) -> tuple[int, int, int, int, int, int, int]:
    """The fields of a record's header whose size fits the data.

    Args:
        data: Records, of an entry or in one of its records.
        offset: Of the header in them.
        entry: Number of the entry in the history, for messages; -1: unknown.

    Raises:
        JournalCorrupt: it does not fit.
    """
    left = len(data) - offset
    if left < HEADER_BYTES:
        raise corrupt(entry, f"{left} bytes at byte {offset}, a header needs {HEADER_BYTES}")
    head = HEADER.unpack_from(data, offset)
    if head[0] < HEADER_BYTES or aligned(head[0]) > left:
        raise corrupt(entry, f"size {head[0]} at byte {offset}, expected {HEADER_BYTES} to {left}")
    return head


def corrupt(entry: int, what: str) -> JournalCorrupt:
    """What is wrong with an entry of the history; -1: with one of unknown number."""
    place = f"entry {entry} of the history" if entry >= 0 else "an entry of the history"
    return JournalCorrupt(f"{place} cannot be read: {what}")
