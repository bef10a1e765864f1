"""Slices: a track as what its process did from when to when, one inside the other.

What a process waits for is a slice, too: what is not said in the record is what lies between.
Slices come in order, whatever encloses others before them.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from lockstep.workers.profile.spans import Kind, Role
from lockstep.workers.profile.tracks import Track, spans_of

BUSY, WAITING = "busy", "waiting"
NONE: Mapping[str, int] = MappingProxyType({})
Span = tuple[int, ...]  # start, end, a, b, c, kind.

NAMES = {
    Kind.START: "start",
    Kind.PREPARE: "prepare",
    Kind.JOURNAL: "journal write",
    Kind.CLOSE: "close",
    Kind.LOADING: "loading",
    Kind.PREFILL: "prefill",
    Kind.DECODE: "decode",
    Kind.SAMPLE: "sampling",
    Kind.COPY: "copies",
    Kind.CALL: "call",
    Kind.TAKE: "take tickets",
    Kind.SYNC: "sync",
}
ARGUMENTS = {  # What a, b and c are called.
    Kind.JOURNAL: ("bytes", "", ""),
    Kind.PREFILL: ("model", "tokens", ""),
    Kind.DECODE: ("model", "", "rows"),
    Kind.SAMPLE: ("", "", "rows"),
    Kind.COPY: ("model", "", "copies"),
    Kind.CALL: ("ticket", "", ""),
}
WAITS = ("nothing asked", "stalled")
WHOLE = {Role.SUPERVISOR: Kind.PASS, Role.INFERENCE: Kind.STEP}  # What the others lie in.
ALONE = (Kind.START, Kind.PREPARE, Kind.CLOSE, Kind.LOADING, Kind.TAKE)  # In no whole.
MOMENTS = (Kind.ASKED, Kind.COUNTED, Kind.USED, Kind.HELD, Kind.TOKEN, Kind.ENDED, Kind.WEIGHTS)
APART = (*MOMENTS, Kind.LEFT, Kind.TOOL)  # No slices: moments, or what goes on side by side.


class Slice(NamedTuple):
    """What a process did.

    Attributes:
        start, end: In ns of CLOCK_MONOTONIC.
        depth: 0, or 1 and 2 for what lies in another one.
        name: Of what it did.
        category: `BUSY` or `WAITING`.
        numbers: By name, for people.
    """

    start: int
    end: int
    depth: int
    name: str
    category: str = BUSY
    numbers: Mapping[str, int] = NONE


def slices(track: Track) -> Iterator[Slice]:
    """All of a track, from its beginning to its end without a gap."""
    at = track.began_ns
    for each in _busy(track):
        if each.depth == 0:
            if each.start > at:
                yield Slice(at, each.start, 0, "waiting", WAITING)
            at = max(at, each.end)
        yield each
    if track.ended_ns > at:
        yield Slice(at, track.ended_ns, 0, "waiting", WAITING)


def _busy(track: Track) -> Iterator[Slice]:
    """What is said in the record."""
    if track.role == Role.TOOLS:
        yield from _calls(track)
        return
    whole = WHOLE.get(track.role)
    parts: list[Span] = []  # Of the pass or step that is written behind them.
    for span in spans_of(track.records):
        kind = span[5]
        if kind == whole:
            yield from _whole(span, parts)
            parts = []
        elif kind == Kind.TURN:
            yield from _turn(span)
        elif kind == Kind.WAIT:
            yield from _parts(parts, 0)
            parts = []
            numbers = {"rows": span[2], "tickets": span[3]}
            yield Slice(span[0], span[1], 0, f"waiting: {WAITS[span[4]]}", WAITING, numbers)
        elif kind in ALONE or (kind in NAMES and whole is None):
            # What came before there was a whole lies in it, or before it.
            before = [part for part in parts if part[1] <= span[0]]
            yield from _parts(before, 0)
            yield _part(span, 0)
            yield from _parts([part for part in parts if part[0] >= span[0]], 1)
            parts = []
        elif kind not in APART:
            parts.append(span)
    yield from _parts(parts, 0)


def _calls(track: Track) -> Iterator[Slice]:
    """Calls of tools go on side by side: one slice from the first of them to the last."""
    begun = ended = calls = 0
    for start, end, *_ in sorted(spans_of(track.of(Kind.TOOL))):
        if calls and start > ended:
            yield Slice(begun, ended, 0, "calls", BUSY, {"calls": calls})
            calls = 0
        begun, ended = (begun, max(ended, end)) if calls else (start, end)
        calls += 1
    if calls:
        yield Slice(begun, ended, 0, "calls", BUSY, {"calls": calls})


def _turn(span: Span) -> Iterator[Slice]:
    start, end, number, sending = span[:4]
    yield Slice(start, end + sending, 0, "turn", BUSY, {"turn": number})
    yield Slice(start, end, 1, "guest")
    yield Slice(end, end + sending, 1, "send")


def _whole(span: Span, parts: Sequence[Span]) -> Iterator[Slice]:
    """A pass of the supervisor or a step of the model, and what was done in it."""
    if span[5] == Kind.STEP:
        start, end, step, load, tokens, _ = span
        rows, tickets = load >> 32, load & 0xFFFF_FFFF
        numbers = {"step": step, "rows": rows, "tickets": tickets, "tokens": tokens}
        yield Slice(start, end, 0, "step", BUSY, numbers)
        yield from _parts(parts, 1)
        return
    start, end, taking, deciding, *_ = span
    yield Slice(start, end, 0, "pass")
    bounds = (start, start + taking, start + taking + deciding, end)
    left = list(parts)
    for name, begun, ended in zip(("take in", "decide", "do"), bounds, bounds[1:], strict=False):
        yield Slice(begun, ended, 1, name)
        inside = [part for part in left if part[0] >= begun and part[1] <= ended]
        yield from _parts(inside, 2)
        left = [part for part in left if part not in inside]


def _parts(parts: Sequence[Span], depth: int) -> Iterator[Slice]:
    for part in parts:
        yield _part(part, depth)


def _part(span: Span, depth: int) -> Slice:
    kind = Kind(span[5])
    names = ARGUMENTS.get(kind, ())
    numbers = {name: span[2 + place] for place, name in enumerate(names) if name}
    return Slice(span[0], span[1], depth, NAMES[kind], BUSY, numbers)
