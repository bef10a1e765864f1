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
        entry: Number of the entry, from 0.
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
    """Whether the last entry is the end of a run."""
    return bool(history) and any(r.kind == Kind.STOP for r in decode(history[-1]))


def _difference(number: int, left: bytes, right: bytes) -> Difference:
    place = _place(left)
    try:
        pairs = zip(decode(left), decode(right), strict=False)
        for a, b in pairs:
            if a != b:
                return Difference(number, place, _show(a), _show(b))
    except ProtocolError:
        pass
    return Difference(number, place, f"{len(left)} bytes of records", f"{len(right)} bytes")


def _place(body: bytes) -> str:
    first = next(decode(body))
    return f"{first.id}.{first.peer}" if first.kind == Kind.TAG else f"step {first.id}"


def _show(record: Record) -> str:
    name = Kind(record.kind).name if record.kind in Kind.__members__.values() else str(record.kind)
    payload = record.payload[:_SHOWN_BYTES]
    more = "..." if len(record.payload) > _SHOWN_BYTES else ""
    return (
        f"{name} id {record.id} item {record.item} peer {record.peer} flags {record.flags} "
        f"{payload!r}{more}"
    )
