"""Effects: a turn's records, checked as a whole before anything of them is applied (rule 2)."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import FLAG_RAW, ITEM_NONE, PEER_NONE, Kind, Outcome, Record, decode

REQUESTS_OPEN_MAX = 4096  # Requests an agent may wait for at once.
TIMERS_OPEN_MAX = 4096  # Timers an agent may have set that have not fired.
TIMER_STEPS_MAX = 2**40
LOG_LEVELS = ("debug", "info", "warning", "error")
TIMER_PAYLOAD = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that ended, physically: its effects wait for their tag."""

    number: int
    fuel: int
    outcome: int
    reason: str
    records: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """What a record may name: sizes of the fleet."""

    agents: int
    models: int
    items: int  # Admitted so far.


class _Shape(NamedTuple):
    """What a kind may carry, by column of the table in docs/abi.md."""

    id: str
    item: str
    peer: str
    payload: str
    flags: int = 0


_SHAPES = {
    Kind.SEND: _Shape("any", "any", "agent", "any"),
    Kind.EMIT: _Shape("none", "item", "nobody", "any"),
    Kind.INFER: _Shape("any", "any", "model", "any", FLAG_RAW),
    Kind.CANCEL: _Shape("any", "none", "nobody", "none"),
    Kind.SET_TIMER: _Shape("any", "any", "nobody", "steps"),
    Kind.LOG: _Shape("level", "any", "log", "any"),
    Kind.DONE: _Shape("none", "any", "nobody", "none"),
}
# The guest's own LOG, its standard output, its standard error. That the latter two are the
# host's to write is checked where they are told apart (workers/agent/turn.py).
LOG_PEERS = (PEER_NONE, 1, 2)


def settle(turn: Turn) -> tuple[Turn, list[Record]]:
    """The turn's records, or a protocol failure in their place.

    A turn that failed keeps its logs only. Bytes that are no records (a broken agent process)
    make a protocol failure, too.
    """
    try:
        records = list(decode(turn.records))
    except ProtocolError as error:
        return failed(turn, str(error)), []
    if turn.outcome in (Outcome.BLOCKED, Outcome.RETURNED):
        return turn, records
    return turn, logs_of(records)


def failed(turn: Turn, reason: str) -> Turn:
    """The same turn, ended by a broken rule of the protocol."""
    return Turn(turn.number, turn.fuel, Outcome.PROTOCOL, reason, turn.records)


def logs_of(records: list[Record]) -> list[Record]:
    """Well-formed logs: what survives a failed turn."""
    levels = range(len(LOG_LEVELS))
    return [
        r
        for r in records
        if r.kind == Kind.LOG and r.id in levels and r.peer in LOG_PEERS and not r.flags
    ]


def check(
    records: list[Record],
    limits: Limits,
    in_use: Callable[[int], bool],
    open_requests: int,
    may_emit: Callable[[int], str],
    may_finish: Callable[[int], str],
    open_timers: int = 0,
) -> str:
    """Why the records must not take effect; empty when they may.

    Args:
        records: Of one turn.
        limits: What indices may be.
        in_use: Whether a request number waits for its answer.
        open_requests: How many do.
        may_emit: Of an item, why the agent must not EMIT for it; empty: it may.
        may_finish: Likewise for DONE.
        open_timers: How many timers have not fired.
    """
    timers = open_timers
    requests: dict[int, None] = {}
    emitted: dict[int, None] = {}
    for number, record in enumerate(records):
        why = _shape_error(record, limits)
        if not why and record.kind == Kind.INFER:
            if record.id in requests or in_use(record.id):
                why = f"request number {record.id} waits for its answer already"
            elif open_requests + len(requests) >= REQUESTS_OPEN_MAX:
                why = f"more than {REQUESTS_OPEN_MAX} requests without an answer"
            requests[record.id] = None
        elif not why and record.kind == Kind.EMIT:
            why = "a second EMIT in one turn" if record.item in emitted else may_emit(record.item)
            emitted[record.item] = None
        elif not why and record.kind == Kind.SET_TIMER:
            timers += 1
            if timers > TIMERS_OPEN_MAX:
                why = f"more than {TIMERS_OPEN_MAX} timers that have not fired"
        elif not why and record.kind == Kind.DONE and record.item:
            why = may_finish(record.item)
        if why:
            name = Kind(record.kind).name if record.kind in Kind.__members__.values() else "?"
            return f"record {number} ({name}, kind {record.kind}, item {record.item}): {why}"
    return ""


def _shape_error(record: Record, limits: Limits) -> str:
    shape = _SHAPES.get(record.kind)  # type: ignore[call-overload]
    if shape is None:
        return "this version serves no such record from a guest"
    if record.flags & ~shape.flags:
        return f"flags {record.flags}, expected {'0 or 1' if shape.flags else '0'}"
    return (
        _id_error(record, shape.id)
        or _item_error(record, shape.item, limits)
        or _peer_error(record, shape.peer, limits)
        or _payload_error(record, shape.payload)
    )


def _id_error(record: Record, ids: str) -> str:
    if ids == "none" and record.id:
        return f"id {record.id}, expected 0"
    if ids == "level" and record.id >= len(LOG_LEVELS):
        return f"level {record.id}, expected 0 to {len(LOG_LEVELS) - 1}"
    return ""


def _item_error(record: Record, items: str, limits: Limits) -> str:
    if items == "none" and record.item:
        return f"item {record.item}, expected 0"
    if record.item > limits.items or (items == "item" and record.item == ITEM_NONE):
        return f"item {record.item}, expected {int(items == 'item')} to {limits.items}"
    return ""


def _peer_error(record: Record, peers: str, limits: Limits) -> str:
    if peers in ("agent", "model"):
        bound = limits.agents if peers == "agent" else limits.models
        if not bound:
            return "the fleet has no [models.NAME]"
        if record.peer >= bound:
            return f"peer {record.peer}, expected a{'n' * (peers == 'agent')} {peers} below {bound}"
    elif peers == "log":
        if record.peer not in LOG_PEERS:
            return f"peer {record.peer}, expected one of {LOG_PEERS}"
    elif record.peer != PEER_NONE:
        return f"peer {record.peer}, expected {PEER_NONE} (nobody)"
    return ""


def _payload_error(record: Record, payloads: str) -> str:
    if payloads == "none" and record.payload:
        return f"payload of {len(record.payload)} bytes, expected none"
    if payloads == "steps":
        if len(record.payload) != TIMER_PAYLOAD.size:
            return f"payload of {len(record.payload)} bytes, expected {TIMER_PAYLOAD.size}"
        (steps,) = TIMER_PAYLOAD.unpack(record.payload)
        if not 1 <= steps <= TIMER_STEPS_MAX:
            return f"{steps} steps, expected 1 to {TIMER_STEPS_MAX}"
    return ""
