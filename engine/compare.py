"""Comparing histories: the first entry at which two differ, and what differed in it."""

from collections.abc import Sequence
from dataclasses import dataclass

from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import GUEST_KINDS, PEER_NONE, Kind, Outcome, Record, decode
from lockstep.engine.step_slots import split

_SHOWN_BYTES = 120
_NOT_AGENTS = (Kind.INFER, Kind.TOOL_CALL, Kind.LOG)
# Kinds whose peer is an agent (docs/abi.md); of the others it stays a number.
_OF_AGENTS = frozenset(
    {kind for kind in GUEST_KINDS if kind not in _NOT_AGENTS}
    | {Kind.ITEM, Kind.MESSAGE, Kind.UNDELIVERED, Kind.START, Kind.TURN, Kind.EFFECT, Kind.TICKET}
    | {Kind.OUTCOME, Kind.FAILED, Kind.FORCED, Kind.CALLED}
)
_OUTCOMES = {int(outcome): outcome.name.lower() for outcome in Outcome if outcome}
_INSIDE = 4  # Records within a record that are named; the rest is counted.
_BEFORE = 3  # Equal records that are shown in front of the first pair that differs.


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two histories part.

    Attributes:
        entry: Number of the entry, from 0; -1 when it is not in the history.
        tag: ``step.microstep`` of it (of the side that has it).
        left: What the first history has there, for people.
        right: What the second has.
        before: The last equal records in front of it, oldest first, for people.
    """

    entry: int
    tag: str
    left: str
    right: str
    before: tuple[str, ...] = ()


def first_difference(
    left: Sequence[bytes],
    right: Sequence[bytes],
    *,
    prefix: bool = False,
    names: Sequence[str] = (),
) -> Difference | None:
    """The first entry that is not equal; None when the histories are.

    Args:
        left: Bodies of entries, in order.
        right: Likewise.
        prefix: ``left`` may end before ``right``.
        names: Of the agents, for people; without them they are numbers.
    """
    teller = _Teller(names)
    for number, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            before = left[number - 1] if number else b""
            return Difference(number, _place(a), *teller.pair(a, b), teller.before(before, a, b))
    if len(left) == len(right) or (prefix and len(left) < len(right)):
        return None
    number = min(len(left), len(right))
    longer = left if len(left) > len(right) else right
    place = _place(longer[number])
    texts = ["the history has ended", f"goes on at {place}"]
    shown = texts if len(left) < len(right) else texts[::-1]
    before = left[number - 1] if number else b""
    return Difference(number, place, shown[0], shown[1], teller.before(before, b"", b""))


def ended(history: Sequence[bytes]) -> bool:
    """Whether the last entry is the end of a run; one that is no records is none."""
    try:
        return bool(history) and any(r.kind == Kind.STOP for r in decode(history[-1]))
    except ProtocolError:
        return False


class _Teller:
    """Records as text for people."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def before(self, entry: bytes, left: bytes, right: bytes) -> tuple[str, ...]:
        """The last records that both sides have: of the equal entry, then the start of the two."""
        try:
            ours, theirs = list(decode(left)), list(decode(right))
            same = _first_difference(ours, theirs)
            records = [*decode(entry), *ours[:same]]
        except ProtocolError:
            return ()
        return tuple(self._show(record, 0) for record in records[-_BEFORE:])

    def pair(self, left: bytes, right: bytes) -> tuple[str, str]:
        """The first records that differ; records within records are opened."""
        try:
            ours, theirs = list(decode(left)), list(decode(right))
        except ProtocolError:
            return f"{len(left)} bytes", f"{len(right)} bytes"
        at = _first_difference(ours, theirs)
        if at == len(ours) or at == len(theirs):
            longer = ours if len(ours) > at else theirs
            texts = f"{at} records", f"{self._head(longer[at])} follows {at} equal records"
            return texts if longer is theirs else texts[::-1]
        a, b = ours[at], theirs[at]
        if at == 0 and a[:5] != b[:5] and {a.kind, b.kind} <= {Kind.TAG, Kind.STEP}:
            return self._goes_on(ours), self._goes_on(theirs)
        if a[:5] == b[:5] and a.kind in (Kind.TURN, Kind.EFFECT) and a.payload and b.payload:
            inner = self.pair(a.payload, b.payload)
            return f"{self._head(a)}: {inner[0]}", f"{self._head(b)}: {inner[1]}"
        if a.kind == b.kind == Kind.STEP:
            return self._steps(a, b)
        start = max(0, _first_difference(a.payload, b.payload) - _SHOWN_BYTES // 4)
        return self._show(a, start), self._show(b, start)

    def _steps(self, a: Record, b: Record) -> tuple[str, str]:
        """What differs of one step: a slot, or an answer."""
        try:
            (ours, left), (theirs, right) = split(a.payload), split(b.payload)
        except ProtocolError:
            return self._show(a, 0), self._show(b, 0)
        place, at = _place_of(a), _first_difference(ours, theirs)
        if ours == theirs:
            inner = self.pair(left, right)
            return f"{place}: {inner[0]}", f"{place}: {inner[1]}"
        texts = [str(side[at]) if at < len(side) else "no more slots" for side in (ours, theirs)]
        return f"{place}: {texts[0]}", f"{place}: {texts[1]}"

    def _goes_on(self, records: Sequence[Record]) -> str:
        """Two histories that go on at different places: where, and with what."""
        place = _place_of(records[0])
        return f"{place}: {self._show(records[1], 0)}" if len(records) > 1 else place

    def _head(self, record: Record) -> str:
        kind = record.kind
        name = Kind(kind).name if kind in Kind.__members__.values() else f"kind {kind}"
        if kind == Kind.TAG:
            return f"{name} {_place_of(record)}"
        parts = [name, f"id {record.id}"]
        if kind == Kind.EFFECT:
            parts.append(f"fuel {record.item}")
        elif record.item:
            parts.append(f"item {record.item}")
        if record.peer != PEER_NONE:
            known = record.peer < len(self._names) and kind in _OF_AGENTS
            parts.append(self._names[record.peer] if known else f"peer {record.peer}")
        if kind == Kind.EFFECT and record.flags in _OUTCOMES:
            parts.append(f"outcome {_OUTCOMES[record.flags]}")
        elif record.flags:
            parts.append(f"flags {record.flags}")
        return " ".join(parts)

    def _show(self, record: Record, start: int) -> str:
        if record.kind == Kind.STEP:
            return _step(record)
        if record.kind in (Kind.TURN, Kind.EFFECT) and record.payload:
            return f"{self._head(record)}: {self._inside(record)}"
        payload = record.payload[start : start + _SHOWN_BYTES]
        before = f"...from byte {start} " if start else ""
        after = "..." if start + _SHOWN_BYTES < len(record.payload) else ""
        shown = f": {before}{payload!r}{after}" if record.payload else ""
        return f"{self._head(record)}{shown}"

    def _inside(self, record: Record) -> str:
        """The records within a record, without what they carry."""
        try:
            heads = [self._head(each) for each in decode(record.payload)]
        except ProtocolError:
            return f"{len(record.payload)} bytes"
        more = f", and {len(heads) - _INSIDE} more" if len(heads) > _INSIDE else ""
        return f"{', '.join(heads[:_INSIDE])}{more}"


def _step(record: Record) -> str:
    try:
        slots, answers = split(record.payload)
        count = len(list(decode(answers)))
    except ProtocolError:
        return f"{_place_of(record)}: {len(record.payload)} bytes"
    tickets = len({slot.ticket: None for slot in slots})
    return f"{_place_of(record)}: {len(slots)} slots of {tickets} tickets, {count} answers"


def _first_difference(left: Sequence[object], right: Sequence[object]) -> int:
    """Where the first two differ (the shorter length, if one begins the other)."""
    pairs = zip(left, right, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _place(body: bytes) -> str:
    try:
        first = next(decode(body), None)
    except ProtocolError:
        first = None
    if first is None:
        return f"an entry of {len(body)} bytes without a place"
    return _place_of(first)


def _place_of(first: Record) -> str:
    return f"{first.id}.{first.peer}" if first.kind == Kind.TAG else f"step {first.id}"
