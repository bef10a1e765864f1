"""Export: records of a journal as JSON objects, decoded as far as their kind says how.

Every object has ``frame`` (number in the journal), ``tag`` (of history; else null) and ``kind``.
Records inside a record (events of a turn, effects, answers) are lists of objects without the
first two. Agents, tools and models are named where the run's identity names them.
"""

import struct
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lockstep.engine.errors import JournalCorrupt, ProtocolError
from lockstep.engine.history import TICKET_PAYLOAD
from lockstep.engine.journal import Frame
from lockstep.engine.order import EFFECT
from lockstep.engine.outside import OF_SOURCES, What, from_record
from lockstep.engine.plan import DUE, FINISH_STATUS
from lockstep.engine.record import (
    FLAG_RAW,
    PEER_ALL,
    PEER_NONE,
    Kind,
    Outcome,
    Record,
    decode,
)
from lockstep.engine.step_slots import Slot, split
from lockstep.engine.strict_json import loads
from lockstep.engine.wire import FromEngine

Object = dict[str, Any]

_RAW = (Kind.INFER, Kind.RESULT)  # Their payload may be binary.
_STATUS = {number: name for name, number in FINISH_STATUS.items()}


class Names:
    """Names of agents, models and tools, by number."""

    def __init__(self, identity: Object | None = None) -> None:
        fleet = (identity or {}).get("fleet", {})
        self.agents, self.models, self.tools, self.sources = (
            [str(one["name"]) for one in fleet.get(key, ())]
            for key in ("agents", "models", "tools", "sources")
        )

    def agent(self, number: int) -> object:
        """The name of an agent; null for nobody."""
        if number in (PEER_NONE, PEER_ALL):
            return None if number == PEER_NONE else "all"
        return _named(self.agents, number)


def _named(names: Sequence[str], number: int) -> object:
    return names[number] if number < len(names) else number


def export(frames: Iterable[Frame], names: Names | None = None) -> Iterator[Object]:
    """Every record of the frames, in order; one frame is held at a time.

    Args:
        frames: Of one journal, from its first on unless ``names`` are given.
        names: Of its identity; None: they are taken from it when it comes.

    Raises:
        JournalCorrupt: a body is no records of the kind that its frame says.
    """
    known = names or Names()
    for frame in frames:
        where: Object = {"frame": frame.number, "tag": None}
        try:
            for record in decode(frame.body):
                if record.kind == Kind.TAG:
                    where["tag"] = f"{record.id}.{record.peer}"
                value = _decoded(record, known)
                if record.kind == Kind.IDENTITY and names is None:
                    known = Names(value["identity"])
                yield {**where, **value}
        except (ProtocolError, ValueError, struct.error) as error:
            raise JournalCorrupt(
                f"frame {frame.number}: its body cannot be read: {error}"
            ) from None


def _decoded(record: Record, names: Names) -> Object:
    kind = kind_name(record.kind)
    value: Object = {"kind": kind}
    rest = _DECODERS.get(record.kind)
    return value | (rest(record, names) if rest is not None else _inner(record, names))


def kind_name(kind: int) -> str:
    """``TURN`` for 97; a number that is none stays one."""
    return Kind(kind).name if kind in Kind.__members__.values() else str(kind)


def payload(data: bytes) -> Object:
    """``payload`` as JSON if it is strictly valid, else as text, else as ``payload_base64``."""
    if not data:
        return {}
    try:
        return {"payload": loads(data)}
    except (ValueError, RecursionError):
        pass
    try:
        return {"payload": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"payload_base64": b64encode(data).decode()}


def _records(data: bytes, names: Names) -> list[Object]:
    return [{"kind": kind_name(r.kind), **_inner(r, names)} for r in decode(data)]


def _inner(record: Record, names: Names) -> Object:
    """A record of guest memory: what an agent reads or writes."""
    value: Object = {"id": record.id, "item": record.item}
    value["peer"] = None if record.peer == PEER_NONE else _peer(record, names)
    if record.flags:
        value["flags"] = record.flags
    if record.kind == Kind.SET_TIMER or (record.kind in _RAW and record.flags & FLAG_RAW):
        # Binary forms: their bytes may happen to be text.
        return value | {"payload_base64": b64encode(record.payload).decode()}
    return value | payload(record.payload)


def _peer(record: Record, names: Names) -> object:
    """Who the peer is; where its kind does not say what it counts, the number (docs/abi.md)."""
    match record.kind:
        case Kind.INFER | Kind.RESULT:
            return _named(names.models, record.peer)
        case Kind.TOOL_CALL | Kind.TOOL_RESULT:
            return _named(names.tools, record.peer)
        case Kind.EVENT:
            return _named(names.sources, record.peer)
        case Kind.LOG | Kind.CANCELLED:
            return record.peer
        case _:
            return names.agent(record.peer)


def _tag(record: Record, names: Names) -> Object:
    return {}


def _turn(record: Record, names: Names) -> Object:
    events = _records(record.payload, names)
    return {"agent": names.agent(record.peer), "turn": record.id, "events": events}


def _effect(record: Record, names: Names) -> Object:
    outcome = record.flags
    known = outcome in Outcome.__members__.values()
    return {
        "agent": names.agent(record.peer),
        "turn": record.id,
        "fuel": record.item,
        "outcome": Outcome(outcome).name.lower() if known else outcome,
        "records": _effects(record.payload, names),
    }


def _effects(data: bytes, names: Names) -> Any:
    """What a turn wrote. A guest may have written what is no record, which failed its turn."""
    try:
        return _records(data, names)
    except ProtocolError:
        return {"payload_base64": b64encode(data).decode()}


def _ticket(record: Record, names: Names) -> Object:
    due, ordinal, request = TICKET_PAYLOAD.unpack(record.payload)
    return {
        "agent": names.agent(record.peer),
        "ticket": record.id,
        "item": record.item,
        "due": due,
        "ordinal": ordinal,
        "id": request,
    }


def _revoke(record: Record, names: Names) -> Object:
    return {"ticket": record.id, "due": int.from_bytes(record.payload, "little")}


def _admit(record: Record, names: Names) -> Object:
    return {"item": record.item}


def _outcome(record: Record, names: Names) -> Object:
    if record.flags:
        return {"item": record.item, "error": record.payload.decode("utf-8", "replace")}
    return {"item": record.item, "agent": names.agent(record.peer), **payload(record.payload)}


def _failed(record: Record, names: Names) -> Object:
    return {
        "agent": names.agent(record.peer),
        "reason": record.payload.decode("utf-8", "replace"),
    }


def _forced(record: Record, names: Names) -> Object:
    return {
        "agent": names.agent(record.peer),
        "circle": record.payload.decode("utf-8", "replace"),
    }


def _called(record: Record, names: Names) -> Object:
    return {
        "agent": names.agent(record.peer),
        "call": record.id,
        "item": record.item,
        "tool": _named(names.tools, record.flags),
    }


def _outside(record: Record, names: Names) -> Object:
    event = from_record(record)
    what = What(event.what)
    source = _named(names.sources, event.source) if what in OF_SOURCES else event.source
    if what == What.PROVIDER:
        source = _named(names.models, event.source)
    return {
        "event": event.number,
        "at": f"{event.tag[0]}.{event.tag[1]}",
        "what": what.name.lower(),
        "source": source,
        **({"flags": event.flags} if event.flags else {}),
        **payload(event.payload),
    }


def _ordered(record: Record, names: Names) -> Object:
    if record.flags == EFFECT:
        micro = int.from_bytes(record.payload, "little")
        agent = names.agent(record.peer)
        return {"what": "effect", "agent": agent, "turn": record.id, "at": f"{record.item}.{micro}"}
    what = "ticket" if record.flags == DUE else "cancel"
    return {"what": what, "ticket": record.id, "due": record.item}


def _stop(record: Record, names: Names) -> Object:
    return {"reason": record.payload.decode("utf-8", "replace")}


def _step(record: Record, names: Names) -> Object:
    slots, answers = split(record.payload)
    return {
        "step": record.id,
        "slots": [_slot(slot, names) for slot in slots],
        "answers": _records(answers, names),
    }


def _slot(slot: Slot, names: Names) -> Object:
    copied = slot.op in (FromEngine.COPY, FromEngine.MOVE)
    found: Object = {"op": slot.op.name.lower(), "source" if copied else "ticket": slot.ticket}
    if slot.op == FromEngine.TAKEN:
        found["what"] = "ticket" if slot.model == DUE else "cancel"
    elif slot.op == FromEngine.SCORE:
        found |= {"sample": slot.model, "place": slot.slot}
    elif slot.op != FromEngine.END:
        found |= {"model": _named(names.models, slot.model), "slot": slot.slot}
    found |= slot.values
    if "status" in found:
        found["status"] = _STATUS.get(found["status"], found["status"])
    return found


def _identity(record: Record, names: Names) -> Object:
    return {"identity": loads(record.payload)}


def _environment(record: Record, names: Names) -> Object:
    return {"environment": loads(record.payload)}


_DECODERS: dict[int, Callable[[Record, Names], Object]] = {
    Kind.TAG: _tag,
    Kind.TURN: _turn,
    Kind.EFFECT: _effect,
    Kind.TICKET: _ticket,
    Kind.REVOKE: _revoke,
    Kind.ADMIT: _admit,
    Kind.OUTCOME: _outcome,
    Kind.FAILED: _failed,
    Kind.STEP: _step,
    Kind.STOP: _stop,
    Kind.IDENTITY: _identity,
    Kind.ENVIRONMENT: _environment,
    Kind.OUTSIDE: _outside,
    Kind.FORCED: _forced,
    Kind.CALLED: _called,
    Kind.ORDERED: _ordered,
}
