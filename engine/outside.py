"""Outside events: what comes in while a run goes on, and the one tag at which each takes effect.

A tool's answer, a line of a source, a wall-clock timer, a person's cancel (rule 8): when they
come is physical, so they are numbered as they arrive, get a tag that nothing can have reached
yet, and are kept in the journal. A second execution has them all from the start.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from lockstep.engine.errors import JournalCorrupt, ProtocolError
from lockstep.engine.fleet import Fleet, Source
from lockstep.engine.record import Kind, Record, encode
from lockstep.engine.tag import ORIGIN, Tag

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
    PROVIDER = 8  # Index of a model; where it goes on, from which step (engine/fallback.py).
    CALL = 9  # As ITEM: an item for the agent that takes calls (engine/schedule/calls.py).


ITEMS = (What.ITEM, What.CALL)
OF_SOURCES = (*ITEMS, What.EVENT, What.CLOSED)  # Their `source` is the index of one.


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


def checked(event: Outside, fleet: Fleet) -> Outside:
    """An event of a record, if the fleet has what it names.

    Raises:
        JournalCorrupt: it has not.
    """
    if event.what in OF_SOURCES:
        known = len(fleet.sources)
    else:
        known = len(fleet.models) if event.what == What.PROVIDER else event.source + 1
    if event.source >= known:
        what = What(event.what).name
        raise JournalCorrupt(f"OUTSIDE {event.number}: {what} of number {event.source}, of {known}")
    return event


class Arrivals:
    """Outside events so far, and which sources may still send one. One writer: the sequencer.

    Attributes:
        count: Events so far; the last one's number.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.count = 0
        self._last: Tag = ORIGIN  # Of the event that arrived last.
        # Sources that hold the end of the run until they are closed.
        self._open = {n: None for n, s in enumerate(sources) if s.kind != "timer" or s.count}

    def repeat(self, event: Outside) -> None:
        """An event of the record."""
        self.count = max(self.count, event.number)
        self._last = max(self._last, event.tag)

    def number(self, tag: Tag, what: What, source: int, flags: int, payload: bytes) -> Outside:
        """An event that comes in now, at ``tag`` or, so that none overtakes another, later.

        Only behind a record can an earlier one have a later tag: what followed on it was lost.
        """
        self.count += 1
        self._last = max(self._last, tag)
        return Outside(self.count, self._last, what, source, flags, payload)

    def took(self, event: Outside) -> None:
        """An event takes effect."""
        if event.what == What.CLOSED:
            self._open.pop(event.source, None)

    def holding(self) -> bool:
        """Whether a source holds the end of the run."""
        return bool(self._open)
