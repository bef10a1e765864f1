"""Effects: a turn's records, checked as a whole before anything of them is applied (rule 2)."""

import re
import struct
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import (
    FLAG_CALL,
    FLAG_ERROR,
    FLAG_RAW,
    FLAG_REPLY,
    FLAG_TOPIC,
    ITEM_NONE,
    PEER_ALL,
    PEER_NONE,
    TAKES_EFFECT,
    TOPIC_SHIFT,
    Kind,
    Outcome,
    Record,
    decode_all,
)

REQUESTS_OPEN_MAX = 4096  # Requests an agent may wait for at once.
TIMERS_OPEN_MAX = 4096  # Timers an agent may have set that have not fired.
TIMER_STEPS_MAX = 2**40
LOG_LEVELS = ("debug", "info", "warning", "error")
NO_MODEL = "the fleet has no [models.NAME]"  # Why an agent ends that asks one all the same.
TIMER_PAYLOAD = struct.Struct("<Q")


class Turn(NamedTuple):
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
    topics: int = 0
    tools: int = 0


class Standing(Protocol):
    """What an agent may do at the tag at which its turn takes effect."""

    @property
    def open_requests(self) -> int:
        """INFER and TOOL_CALL whose answer it has not seen."""

    @property
    def open_timers(self) -> int:
        """Timers that have not fired."""

    @property
    def open_calls(self) -> int:
        """Calls whose reply it has not got."""

    def in_use(self, request: int) -> bool:
        """Whether a request number waits for its answer."""

    def call_in_use(self, number: int) -> bool:
        """Whether a call of its own waits for the reply."""

    def may_reply(self, caller: int, number: int) -> bool:
        """Whether the caller waits for this reply of the agent (or is gone)."""

    def may_emit(self, item: int, peer: int, given_up: bool) -> str:
        """Why the agent must not EMIT for an item; empty: it may."""

    def may_finish(self, item: int) -> str:
        """Likewise for DONE."""

    def may_cancel_run(self) -> bool:
        """Whether its group may cancel the whole run."""

    def may_use(self, tool: int) -> bool:
        """Whether its group may call the tool."""


class _Shape(NamedTuple):
    """What a kind may carry, by column of the table in docs/abi.md."""

    id: str
    item: str
    peer: str
    payload: str
    flags: int = 0


_SHAPES = {
    Kind.SEND: _Shape("any", "any", "receiver", "any", FLAG_TOPIC | FLAG_CALL | FLAG_REPLY),
    Kind.EMIT: _Shape("none", "item", "successor", "any", FLAG_ERROR),
    Kind.INFER: _Shape("any", "any", "model", "any", FLAG_RAW),
    Kind.CANCEL: _Shape("any", "any", "everybody", "none"),
    Kind.SUBSCRIBE: _Shape("switch", "none", "nobody", "none", FLAG_TOPIC),
    Kind.SET_TIMER: _Shape("any", "any", "nobody", "steps"),
    Kind.TOOL_CALL: _Shape("any", "any", "tool", "any"),
    Kind.LOG: _Shape("level", "any", "log", "any"),
    Kind.DONE: _Shape("none", "any", "nobody", "none"),
}
# The guest's own LOG, its standard output, its standard error. That the latter two are the
# host's to write is checked where they are told apart (workers/agent/turn.py).
LOG_PEERS = (PEER_NONE, 1, 2)
_SEND = int(Kind.SEND)
_LOW_FLAGS = (1 << TOPIC_SHIFT) - 1
_REFUSED = re.compile(r"record \d+ \(")  # How the reasons of `check` begin.


def settle(turn: Turn) -> tuple[Turn, list[Record]]:
    """The turn's records, or a protocol failure in their place.

    A turn that failed keeps its logs only. Bytes that are no records (a broken agent process)
    make a protocol failure, too.
    """
    try:
        records = decode_all(turn.records)
    except ProtocolError as error:
        return failed(turn, str(error)), []
    if turn.outcome in TAKES_EFFECT:
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


def check(records: list[Record], limits: Limits, standing: Standing) -> str:
    """Why the records of one turn must not take effect; empty when they may."""
    turn = None
    for number, record in enumerate(records):
        if _is_plain(record, limits):
            continue
        turn = turn or _TurnCheck(standing)
        why = _shape_error(record, limits) or turn.check(record)
        if why:
            name = Kind(record.kind).name if record.kind in Kind.__members__.values() else "?"
            return f"record {number} ({name}, kind {record.kind}, item {record.item}): {why}"
    return ""


def was_refused(reason: str) -> bool:
    """Whether `check` gave the reason for which a turn failed; no other one begins like that."""
    return _REFUSED.match(reason) is not None


def _is_plain(record: Record, limits: Limits) -> bool:
    """A message to one agent, or a log line: most records, and nothing to look up for them."""
    if record.flags:
        return False
    if record.kind == _SEND:
        return record.peer < limits.agents and record.item <= limits.items
    return record.kind == Kind.LOG and not _shape_error(record, limits)


class _TurnCheck:
    """What depends on the world, and on what the turn has written before."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._timers = 0
        self._requests: dict[int, None] = {}
        self._calls: dict[int, None] = {}
        self._replies: dict[tuple[int, int], None] = {}
        self._emitted: dict[int, None] = {}

    def check(self, record: Record) -> str:
        match record.kind:
            case Kind.SEND:
                return self._send(record) if record.flags else ""
            case Kind.INFER:
                return self._request(record)
            case Kind.TOOL_CALL:
                if not self._standing.may_use(record.peer):
                    return "the fleet does not let the agent call this tool (tools)"
                return self._request(record)
            case Kind.EMIT:
                return self._emit(record)
            case Kind.SET_TIMER:
                self._timers += 1
                if self._standing.open_timers + self._timers > TIMERS_OPEN_MAX:
                    return f"more than {TIMERS_OPEN_MAX} timers that have not fired"
            case Kind.DONE if record.item:
                return self._standing.may_finish(record.item)
            case Kind.CANCEL if record.item or record.peer == PEER_ALL:
                return self._cancel(record)
        return ""

    def _cancel(self, record: Record) -> str:
        """Of an item or of the run: what is not just one's own."""
        if record.id:
            what = "an item" if record.item else "the run"
            return f"id {record.id}, expected 0 where {what} is cancelled"
        if record.peer != PEER_ALL:
            return ""
        if record.item:
            return f"item {record.item}, expected 0 where the run is cancelled"
        allowed = self._standing.may_cancel_run()
        return "" if allowed else "the fleet does not let the agent cancel the run (may_cancel_run)"

    def _send(self, record: Record) -> str:
        if record.flags & FLAG_CALL:
            if record.id in self._calls or self._standing.call_in_use(record.id):
                return f"call {record.id} waits for its reply already"
            if self._standing.open_calls + len(self._calls) >= REQUESTS_OPEN_MAX:
                return f"more than {REQUESTS_OPEN_MAX} calls without a reply"
            self._calls[record.id] = None
        elif record.flags & FLAG_REPLY:
            reply = (record.peer, record.id)
            if reply in self._replies or not self._standing.may_reply(*reply):
                return f"agent {record.peer} does not wait for a reply to a call {record.id}"
            self._replies[reply] = None
        return ""

    def _request(self, record: Record) -> str:
        if record.id in self._requests or self._standing.in_use(record.id):
            return f"request number {record.id} waits for its answer already"
        if self._standing.open_requests + len(self._requests) >= REQUESTS_OPEN_MAX:
            return f"more than {REQUESTS_OPEN_MAX} requests without an answer"
        self._requests[record.id] = None
        return ""

    def _emit(self, record: Record) -> str:
        if record.item in self._emitted:
            return "a second EMIT in one turn"
        self._emitted[record.item] = None
        given_up = bool(record.flags & FLAG_ERROR)
        if given_up and record.peer != PEER_NONE:
            return f"peer {record.peer}, expected {PEER_NONE} (nobody) where an item is given up"
        return self._standing.may_emit(record.item, record.peer, given_up)


def _shape_error(record: Record, limits: Limits) -> str:
    shape = _SHAPES.get(record.kind)  # type: ignore[call-overload]
    if shape is None:
        return "this version serves no such record from a guest"
    return (
        _flags_error(record, shape.flags, limits)
        or _id_error(record, shape.id)
        or _item_error(record, shape.item, limits)
        or _peer_error(record, shape.peer, limits)
        or _payload_error(record, shape.payload)
    )


def _flags_error(record: Record, allowed: int, limits: Limits) -> str:
    flags = record.flags
    if not flags:
        return "flags 0, expected TOPIC (4)" if record.kind == Kind.SUBSCRIBE else ""
    low, topic = flags & _LOW_FLAGS, flags >> TOPIC_SHIFT
    single = low & (low - 1) == 0  # No kind has two flags at once.
    if not single or low & ~allowed or (topic and low != FLAG_TOPIC):
        known = [str(flag) for flag in (1, 2, 4, 8, 16) if flag & allowed]
        return f"flags {flags}, expected {' or '.join(['0', *known])}"
    if low == FLAG_TOPIC and topic >= limits.topics:
        return f"topic {topic}, expected one below {limits.topics}"
    return ""


def _id_error(record: Record, ids: str) -> str:
    if ids == "none" and record.id:
        return f"id {record.id}, expected 0"
    if ids == "switch" and record.id > 1:
        return f"id {record.id}, expected 0 (subscribe) or 1 (no more)"
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
    peer = record.peer
    if peers == "receiver":
        if record.flags & FLAG_TOPIC:
            return _bound(peer, 0, "agent", PEER_NONE)
        if record.flags:
            return _bound(peer, limits.agents, "agent")
        return "" if peer == PEER_ALL else _bound(peer, limits.agents, "agent")
    if peers == "everybody" and peer == PEER_ALL:
        return ""
    if peers == "successor":
        return "" if peer == PEER_NONE else _bound(peer, limits.agents, "agent")
    if peers == "model":
        bound = limits.models
        return _bound(peer, bound, "model") if bound else NO_MODEL
    if peers == "tool":
        bound = limits.tools
        return _bound(peer, bound, "tool") if bound else "the fleet has no [tools.NAME]"
    if peers == "log":
        return "" if peer in LOG_PEERS else f"peer {peer}, expected one of {LOG_PEERS}"
    return _bound(peer, 0, "", PEER_NONE)


def _bound(peer: int, bound: int, what: str, other: int = -1) -> str:
    if peer < bound or peer == other:
        return ""
    if other == PEER_NONE:
        return f"peer {peer}, expected {PEER_NONE} (nobody)"
    return f"peer {peer}, expected a{'n' * (what == 'agent')} {what} below {bound}"


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
