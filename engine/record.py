"""Records: the one format of guest memory, rings and journal.

A record that a guest writes is not re-encoded on its way; it is copied, ordered and logged. So
this decoder meets bytes from untrusted peers first: it never trusts a size, reads each field
once, and names the field and the limit when it refuses. docs/abi.md says what ``id``, ``item``
and ``peer`` mean for every kind.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from lockstep.engine.errors import ProtocolError

# Record header, 32 bytes, little-endian, 8-byte aligned in every medium.
#
#   0        4      6       8        16       24       28         32
#   +--------+------+-------+--------+--------+--------+----------+-- ... --+-----+
#   | size   | kind | flags | id     | item   | peer   | reserved | payload | 0.. |
#   | u32    | u16  | u16   | u64    | u64    | u32    | u32 = 0  |         |     |
#   +--------+------+-------+--------+--------+--------+----------+-- ... --+-----+
#
# size   bytes of header and payload, without the zero padding to the next multiple of 8.
# The next record begins at the next multiple of 8.
HEADER = struct.Struct("<IHHQQII")
HEADER_BYTES = 32
ALIGN = 8
OFFSETS = {"size": 0, "kind": 4, "flags": 6, "id": 8, "item": 16, "peer": 24, "reserved": 28}

PEER_NONE = 0xFFFF_FFFF  # The peer is nobody: the input, the runtime.
PEER_ALL = 0xFFFF_FFFE  # SEND: to every other agent.
_PADDINGS = [bytes(n) for n in range(ALIGN)]
ITEM_NONE = 0  # Items are numbered from 1.


class Kind(IntEnum):
    """Kinds of records. Below 32 to the guest, below 64 from it, the rest between processes."""

    START = 1
    ITEM = 2
    MESSAGE = 3
    RESULT = 4
    TIMER = 5
    TOOL_RESULT = 6
    CANCELLED = 7
    UNDELIVERED = 8
    CLOSE = 9
    EVENT = 10

    SEND = 33
    EMIT = 34
    INFER = 35
    CANCEL = 36
    SUBSCRIBE = 37
    SET_TIMER = 38
    TOOL_CALL = 39
    LOG = 40
    DONE = 41

    END = 64  # Agent process -> supervisor: a turn is complete (count, fuel, hash).
    WAKE = 65  # Supervisor -> agent process: events of the next turn follow.
    SHUTDOWN = 66  # Supervisor -> agent process: leave now.
    READY = 67  # Agent process -> supervisor: the module is loaded, turn 0 begins.
    ACCIDENT = 68  # Agent process -> supervisor: it leaves by an accident; payload says why.
    PROGRESS = 69  # Agent process -> supervisor: turn `id` has burnt `item` fuel so far, at least.

    TAG = 96  # History: what happened at one tag follows.
    TURN = 97  # History: an agent was woken; payload is its events.
    EFFECT = 98  # History: a turn took effect; payload is its records.
    TICKET = 99
    REVOKE = 100  # History: a request was asked to be cancelled.
    ADMIT = 101  # History: an item entered.
    OUTCOME = 102  # History: an item was finished or failed; payload is the output.
    FAILED = 103  # History: an agent failed.
    STEP = 104  # History: one step of the inference process; payload is its slots and answers.
    STOP = 105  # History: the run ended.
    IDENTITY = 106  # Journal: what decides every bit of the run. Canonical JSON.
    ENVIRONMENT = 107  # Journal: what it ran on. Not in the digest.
    OUTSIDE = 108  # An outside event got its tag (journal), or took effect (history).
    FORCED = 109  # History: a message was accepted over the bound; payload names the cycle.
    CALLED = 111  # History: a host command was asked for; flags is the tool.
    ORDERED = 110  # Journal: what arrival order chose: F of a turn, due of a ticket or cancel.


GUEST_KINDS = frozenset(range(Kind.SEND, Kind.DONE + 1))

FLAG_RAW = 1  # INFER and RESULT: the payload is the binary form, not JSON.
# RESULT, TOOL_RESULT: it failed, the payload says why. EMIT: the agent gives the item up.
FLAG_ERROR = 2
FLAG_TOPIC = 4  # SEND, MESSAGE, SUBSCRIBE: the high byte of the flags is the topic.
FLAG_CALL = 8  # SEND, MESSAGE, UNDELIVERED: the sender waits for a reply with the same id.
FLAG_REPLY = 16  # SEND, MESSAGE: the reply to a call.
TOPIC_SHIFT = 8
TOPICS_MAX = 256


class Outcome(IntEnum):
    """How a turn ended (``flags`` of END and EFFECT)."""

    BLOCKED = 0  # The guest waits for its next events.
    RETURNED = 1  # `main` returned, or proc_exit(0).
    TRAPPED = 2
    OUT_OF_FUEL = 3
    OVER_LIMIT = 4
    PROTOCOL = 5
    EXITED = 6  # proc_exit with another code than 0.


# After these a turn's records count (rule 2); after the others only its logs do.
TAKES_EFFECT = frozenset({Outcome.BLOCKED, Outcome.RETURNED})


class Record(NamedTuple):
    """One decoded record. ``payload`` is bytes of the buffer it was read from."""

    kind: int
    flags: int
    id: int
    item: int
    peer: int
    payload: bytes


class TurnEnd(NamedTuple):
    """What an agent process says at the end of a turn (payload of END after its header)."""

    turn: int
    outcome: int
    fuel: int
    count: int  # type: ignore[assignment]
    digest: bytes
    reason: str


def aligned(size: int) -> int:
    """``size`` rounded up to the alignment of records."""
    return (size + ALIGN - 1) & ~(ALIGN - 1)


def encode(
    kind: int,
    payload: bytes = b"",
    *,
    flags: int = 0,
    id: int = 0,
    item: int = ITEM_NONE,
    peer: int = PEER_NONE,
) -> bytes:
    """One record with its padding."""
    size = HEADER_BYTES + len(payload)
    head = HEADER.pack(size, kind, flags, id, item, peer, 0)
    return head + payload + _PADDINGS[-size % ALIGN]


def encode_record(record: Record) -> bytes:
    """The bytes that `decode` made the record of."""
    return encode(
        record.kind,
        record.payload,
        flags=record.flags,
        id=record.id,
        item=record.item,
        peer=record.peer,
    )


def decode(data: bytes) -> Iterator[Record]:
    """Every record of ``data``, in order.

    Raises:
        ProtocolError: a size below the header, beyond the data or unaligned at the end, a
            reserved field or padding that is not zero. The offset is named.
    """
    offset, end = 0, len(data)
    while offset < end:
        record, offset = decode_at(data, offset)
        yield record


def decode_all(data: bytes) -> list[Record]:
    """As `decode`, all or nothing."""
    records, offset, end = [], 0, len(data)
    while offset < end:
        record, offset = decode_at(data, offset)
        records.append(record)
    return records


def decode_at(data: bytes, offset: int) -> tuple[Record, int]:
    """The record at ``offset`` and the offset of the next one. Errors as `decode`."""
    left = len(data) - offset
    if left < HEADER_BYTES:
        raise ProtocolError(f"record at byte {offset}: {left} bytes, a header needs {HEADER_BYTES}")
    size, kind, flags, id, item, peer, reserved = HEADER.unpack_from(data, offset)
    whole = size + ALIGN - 1 & -ALIGN
    if size < HEADER_BYTES or whole > left:
        raise ProtocolError(
            f"record at byte {offset}: size {size}, expected {HEADER_BYTES} to {left} with padding"
        )
    if reserved:
        raise ProtocolError(f"record at byte {offset}: reserved field is {reserved}, expected 0")
    stop, after = offset + size, offset + whole
    if stop != after and any(data[stop:after]):
        raise ProtocolError(f"record at byte {offset}: padding after {size} bytes is not zero")
    payload = bytes(data[offset + HEADER_BYTES : stop])
    return tuple.__new__(Record, (kind, flags, id, item, peer, payload)), after


DIGEST_BYTES = 32


def encode_end(end: TurnEnd) -> bytes:
    """The END record of a turn: id = turn, item = fuel, peer = count of records."""
    return encode(
        Kind.END,
        end.digest + end.reason.encode(),
        flags=end.outcome,
        id=end.turn,
        item=end.fuel,
        peer=end.count,
    )


def decode_end(record: Record) -> TurnEnd:
    """The fields of an END record.

    Raises:
        ProtocolError: the payload is shorter than a digest or the outcome is unknown.
    """
    if len(record.payload) < DIGEST_BYTES or record.flags not in Outcome.__members__.values():
        raise ProtocolError(f"END of turn {record.id}: outcome {record.flags}, malformed")
    reason = record.payload[DIGEST_BYTES:].decode("utf-8", "replace")
    digest = record.payload[:DIGEST_BYTES]
    return TurnEnd(record.id, record.flags, record.item, record.peer, digest, reason)


# Payload of WAKE, 16 bytes: how many events follow as records, and their bytes in the ring.
WAKE_PAYLOAD = struct.Struct("<QQ")
_WAKE = struct.Struct(HEADER.format + "QQ")
_WAKE_KIND = int(Kind.WAKE)


def encode_wake(turn: int, step: int, micro: int, events: bytes, count: int) -> bytes:
    """WAKE (id = turn, item = step, peer = microstep) and the events behind it."""
    head = _WAKE.size, _WAKE_KIND, 0, turn, step, micro, 0
    return _WAKE.pack(*head, count, len(events)) + events
