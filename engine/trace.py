"""Trace: turns and steps of a record as text for people, one line per record. Returns strings.

What guests, models and tools wrote may hold anything: control characters must not reach a
terminal, and one huge payload must not bury the rest. So everything is escaped and cut here.
"""

from collections.abc import Iterator, Sequence

from lockstep.engine import tag as tags
from lockstep.engine.effects import LOG_LEVELS, TIMER_PAYLOAD
from lockstep.engine.errors import ProtocolError
from lockstep.engine.fleet import Fleet
from lockstep.engine.order import EFFECT
from lockstep.engine.outside import OF_SOURCES, What, from_record
from lockstep.engine.past import PastTurn, report_of
from lockstep.engine.plan import DUE
from lockstep.engine.record import (
    FLAG_CALL,
    FLAG_ERROR,
    FLAG_RAW,
    FLAG_REPLY,
    FLAG_TOPIC,
    PEER_ALL,
    PEER_NONE,
    TAKES_EFFECT,
    TOPIC_SHIFT,
    Kind,
    Outcome,
    Record,
    decode,
)

SHOWN_BYTES = 160  # Of a payload; the rest is counted.
_FLAGS = {FLAG_RAW: "raw", FLAG_ERROR: "error", FLAG_CALL: "call", FLAG_REPLY: "reply"}
# What `peer` names, by kind; of all others an agent.
_MODEL = frozenset({Kind.INFER, Kind.RESULT})
_TOOL = frozenset({Kind.TOOL_CALL, Kind.TOOL_RESULT})
_SOURCE = frozenset({Kind.EVENT})
_STREAMS = {1: "stdout", 2: "stderr"}


def printable(data: bytes, most: int = SHOWN_BYTES) -> str:
    """Bytes as one line of text: escaped where they would do something, cut after ``most`` bytes.

    Text in UTF-8 stays readable. The result holds no control character and no line break.
    """
    text = data[:most].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else _escaped(c) for c in text)
    return shown if len(data) <= most else f"{shown}... ({len(data)} bytes)"


class Trace:
    """Names of one fleet, and records by them.

    Args:
        fleet: Whose record it is.
        most: Bytes of a payload that are shown.
    """

    def __init__(self, fleet: Fleet, most: int = SHOWN_BYTES) -> None:
        self._most = most
        self._agents = [agent.name for agent in fleet.agents]
        self._models = [model.name for model in fleet.models]
        self._tools = [tool.name for tool in fleet.tools]
        self._sources = [source.name for source in fleet.sources]
        self._topics = fleet.schedule.topics

    def turn(self, agent: int, turn: PastTurn) -> Iterator[str]:
        """A turn: one line about it, one for each event and each record of its effect."""
        name = _name(self._agents, agent)
        yield f"{tags.text(turn.tag)} {name} turn {turn.number}: {_ending(turn)}"
        for line in self.records(turn.events):
            yield f"  < {line}"
        for line in self.records(turn.records):
            yield f"  > {line}"

    def records(self, data: bytes) -> Iterator[str]:
        """A line for each record; what is no record is said to be none."""
        try:
            for record in decode(data):
                yield self.record(record)
        except ProtocolError as error:
            yield f"no records: {error}"

    def record(self, record: Record) -> str:
        """``SEND to judge, item 3: the payload``."""
        about = [part for part in self._about(record) if part]
        head = " ".join([_kind(record.kind), ", ".join(about)]).rstrip()
        if record.kind == Kind.SET_TIMER and len(record.payload) == TIMER_PAYLOAD.size:
            return f"{head}: in {TIMER_PAYLOAD.unpack(record.payload)[0]} steps"
        payload = printable(record.payload, self._most)
        return f"{head}: {payload}" if payload else head

    def entry(self, body: bytes) -> Iterator[str]:
        """An entry of history: a line about it, then its records, those of turns indented."""
        records = list(decode(body))
        first = records[0]
        if first.kind == Kind.STEP:
            yield from self._step(body)
            return
        yield f"tag {first.id}.{first.peer}"
        for record in records[1:]:
            yield from self._logical(record)

    def kept(self, record: Record) -> str:
        """What the journal keeps besides the history."""
        if record.kind == Kind.OUTSIDE:
            return self._outside(record)
        if record.flags == EFFECT:
            micro = int.from_bytes(record.payload, "little")
            name = _name(self._agents, record.peer)
            return f"on arrival: turn {record.id} of {name} takes effect at {record.item}.{micro}"
        what = "ticket" if record.flags == DUE else "cancel of ticket"
        return f"on arrival: {what} {record.id} due {record.item}"

    def _step(self, body: bytes) -> Iterator[str]:
        report = report_of(body)
        yield f"step {report.step}: {len(report.tokens)} tokens, {len(report.answers)} answers"
        for ticket, token in report.tokens:
            yield f"  ticket {ticket}: token {token}"
        for answer in report.answers:
            for line in self.records(answer.record):
                yield f"  ticket {answer.ticket} ends: {line}"

    def _logical(self, record: Record) -> Iterator[str]:
        """A record of history itself; what lies in it is of an agent."""
        name = _name(self._agents, record.peer) if record.peer != PEER_NONE else ""
        item = f" item {record.item}" if record.item else ""
        match record.kind:
            case Kind.TURN:
                yield f"  {name} turn {record.id} begins"
                yield from (f"    < {line}" for line in self.records(record.payload))
            case Kind.EFFECT:
                ending = _outcome(record.flags)
                yield f"  {name} turn {record.id} takes effect: {ending}, fuel {record.item}"
                yield from (f"    > {line}" for line in self.records(record.payload))
            case Kind.TICKET:
                due = int.from_bytes(record.payload[:8], "little")
                yield f"  ticket {record.id} of {name}{item}, due {due}"
            case Kind.REVOKE:
                due = int.from_bytes(record.payload[:8], "little")
                yield f"  cancel of ticket {record.id}, due {due}"
            case Kind.CALLED:
                tool = _name(self._tools, record.flags)
                yield f"  call {record.id} of tool {tool} by {name}{item}"
            case Kind.OUTSIDE:
                yield f"  {self._outside(record)}"
            case Kind.OUTCOME:
                how = "fails" if record.flags else "is done"
                yield f"  item {record.item} {how}: {printable(record.payload, self._most)}"
            case _:
                said = printable(record.payload, self._most)
                parts = [_kind(record.kind).lower(), name, item.strip(), said]
                yield "  " + " ".join(part for part in parts if part)

    def _outside(self, record: Record) -> str:
        try:
            event = from_record(record)
        except ProtocolError as error:
            return f"outside {record.id}: {error}"
        what = What(event.what).name.lower().replace("_", " ")
        of = event.source
        source = _name(self._sources, of) if event.what in OF_SOURCES else str(of)
        if event.what == What.PROVIDER:
            source = _name(self._models, of)
        said = printable(event.payload, self._most)
        return f"outside {event.number} at {tags.text(event.tag)}: {what} {source} {said}".rstrip()

    def _about(self, record: Record) -> Iterator[str]:
        yield self._peer(record)
        if record.kind == Kind.LOG:
            yield LOG_LEVELS[record.id] if record.id < len(LOG_LEVELS) else f"level {record.id}"
            return
        if record.id:
            yield f"id {record.id}"
        if record.item and record.kind != Kind.START:
            yield f"item {record.item}"
        if record.flags:
            yield self._flags(record.flags)

    def _flags(self, flags: int) -> str:
        if flags & FLAG_TOPIC:
            return f"topic {_name(self._topics, flags >> TOPIC_SHIFT)}"
        return _FLAGS.get(flags, f"flags {flags}")

    def _peer(self, record: Record) -> str:
        """Who is on the other side, by name."""
        kind, peer = record.kind, record.peer
        if peer == PEER_NONE:
            return ""
        if peer == PEER_ALL:
            return "to all"
        if kind == Kind.LOG:
            return _STREAMS.get(peer, f"stream {peer}")
        if kind in _MODEL:
            return _name(self._models, peer)
        if kind in _TOOL:
            return _name(self._tools, peer)
        if kind in _SOURCE:
            return _name(self._sources, peer)
        way = "from" if kind == Kind.MESSAGE else "to"
        return f"{way} {_name(self._agents, peer)}"


def _ending(turn: PastTurn) -> str:
    if turn.outcome is None:
        return "not over in the record"
    reason = f" ({printable(turn.reason.encode())})" if turn.reason else ""
    return f"{_outcome(turn.outcome)}{reason}, fuel {turn.fuel}"


def _outcome(outcome: int) -> str:
    if outcome not in Outcome.__members__.values():
        return f"outcome {outcome}"
    name = Outcome(outcome).name.lower().replace("_", " ")
    return name if outcome in TAKES_EFFECT else f"failed: {name}"


def _kind(kind: int) -> str:
    return Kind(kind).name if kind in Kind.__members__.values() else f"kind {kind}"


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"{index}?"


def _escaped(char: str) -> str:
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    code = ord(char)
    if known or code < 256:
        return known or f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
