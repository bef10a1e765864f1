"""Comparing histories: the first entry at which two differ, and what differed in it."""

from collections.abc import Sequence
from dataclasses import dataclass

from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import Kind, Record, decode

_SHOWN_BYTES = 120


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two histories part.

    Attributes:
        entry: Number of the entry, from 0; -1 when it is not in the history.
        tag: ``step.microstep`` of it (of the side that has it).
        left: What the first history has there, for people.
        right: What the second has.
    """

    entry: int
    tag: str
    left: str
    right: str


def first_difference(
    left: Sequence[bytes], right: Sequence[bytes], *, prefix: bool = False
) -> Difference | None:
    """The first entry that is not equal; None when the histories are.

    Args:
        left: Bodies of entries, in order.
        right: Likewise.
        prefix: ``left`` may end before ``right``.
    """
    for number, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return _difference(number, a, b)
    if len(left) == len(right) or (prefix and len(left) < len(right)):
        return None
    number = min(len(left), len(right))
    longer = left if len(left) > len(right) else right
    place = _place(longer[number])
    texts = ["the history has ended", f"goes on at {place}"]
    shown = texts if len(left) < len(right) else texts[::-1]
    return Difference(number, place, *shown)


def ended(history: Sequence[bytes]) -> bool:
    """Whether the last entry is the end of a run; one that is no records is none."""
    try:
        return bool(history) and any(r.kind == Kind.STOP for r in decode(history[-1]))
    except ProtocolError:
        return False


def _difference(number: int, left: bytes, right: bytes) -> Difference:
    return Difference(number, _place(left), *_first_pair(left, right))


def _first_pair(left: bytes, right: bytes) -> tuple[str, str]:
    """The first records that differ, for people; records within records are opened."""
    try:
        ours, theirs = list(decode(left)), list(decode(right))
    except ProtocolError:
        return f"{len(left)} bytes", f"{len(right)} bytes"
    for a, b in zip(ours, theirs, strict=False):
        if a == b:
            continue
        if a[:5] == b[:5] and a.kind in (Kind.TURN, Kind.EFFECT) and a.payload and b.payload:
            inner = _first_pair(a.payload, b.payload)
            return f"{_head(a)}: {inner[0]}", f"{_head(b)}: {inner[1]}"
        start = max(0, _first_difference(a.payload, b.payload) - _SHOWN_BYTES // 4)
        return _show(a, start), _show(b, start)
    count = min(len(ours), len(theirs))
    longer = ours if len(ours) > count else theirs
    texts = f"{count} records", f"{_head(longer[count])} follows {count} equal records"
    return texts if longer is theirs else texts[::-1]


def _first_difference(left: bytes, right: bytes) -> int:
    """Offset of the first byte that differs (the shorter length, if one begins the other)."""
    pairs = zip(left, right, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _place(body: bytes) -> str:
    try:
        first = next(decode(body), None)
    except ProtocolError:
        first = None
    if first is None:
        return f"an entry of {len(body)} bytes without a place"
    return f"{first.id}.{first.peer}" if first.kind == Kind.TAG else f"step {first.id}"


def _head(record: Record) -> str:
    name = Kind(record.kind).name if record.kind in Kind.__members__.values() else str(record.kind)
    return f"{name} id {record.id} item {record.item} peer {record.peer} flags {record.flags}"


def _show(record: Record, start: int) -> str:
    payload = record.payload[start : start + _SHOWN_BYTES]
    before = f"...from byte {start} " if start else ""
    after = "..." if start + _SHOWN_BYTES < len(record.payload) else ""
    return f"{_head(record)}: {before}{payload!r}{after}"
