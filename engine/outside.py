"""Outside events: what comes in while a run goes on, and the one tag at which each takes effect.

A tool's answer, a line of a source, a wall-clock timer, a person's cancel (rule 8): when they
come is physical, so they are numbered as they arrive, get a tag that nothing can have reached
yet, and are kept in the journal. A second execution has them all from the start.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import Kind, Record, encode
from lockstep.engine.tag import Tag

_HEAD = struct.Struct("<QII")  # source, flags, 0


class What(IntEnum):
    """What came in. ``source`` and ``payload`` mean:"""

    ITEM = 1  # Index of a source; a line of input.
    EVENT = 2  # Index of a source; a line, or nothing (timer).
    CLOSED = 3  # Index of a source; nothing: no more will come from it.
    TOOL = 4  # Number of the call; its TOOL_RESULT's payload, flags as there.
    CANCEL_RUN = 5  # 0; who or why, as text.
    CANCEL_ITEM = 6  # Number of the item; likewise.
    CANCEL_REQUEST = 7  # Number of the ticket; likewise.


class Outside(NamedTuple):
    """One outside event. ``number`` counts arrivals from 1; ``tag`` is where it takes effect."""

    number: int
    tag: Tag
    what: int
    source: int
    flags: int
    payload: bytes

    def record(self) -> bytes:
        """OUTSIDE, as journal and history keep it."""
        head = _HEAD.pack(self.source, self.flags, 0)
        step, micro = self.tag
        return encode(
            Kind.OUTSIDE, head + self.payload,
            flags=self.what, id=self.number, item=step, peer=micro,
        )  # fmt: skip


def from_record(record: Record) -> Outside:
    """The event of an OUTSIDE record.

    Raises:
        ProtocolError: its payload is too short, or what came in is unknown.
    """
    if len(record.payload) < _HEAD.size or record.flags not in What.__members__.values():
        raise ProtocolError(f"OUTSIDE {record.id}: malformed")
    source, flags, _ = _HEAD.unpack_from(record.payload)
    payload = record.payload[_HEAD.size :]
    return Outside(record.id, (record.item, record.peer), record.flags, source, flags, payload)
