"""Restore: what the inference process knew and had in its slots, from the record alone. Pure.

The record is read from its end backwards, steps first. The last row admitted to a slot says what
the slot holds, or the one that it was moved to: its prompt as far as it was prefilled, and the
tokens that were fed behind it. A ticket without an END is unanswered. So a planner that is given
this plans what the lost one would have planned, step for step; nothing physical is in it.

Where the keys and values themselves are gone, too, engine/lineage.py says which recorded writes
made them, and engine/again.py which runs those belonged to.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lockstep.engine.again import INVALID, Forward, rows_of
from lockstep.engine.errors import JournalCorrupt, ProtocolError
from lockstep.engine.fleet import Fleet
from lockstep.engine.history import TICKET_PAYLOAD
from lockstep.engine.lineage import Key, Lineage, Row
from lockstep.engine.past import Earlier, Past, place_of
from lockstep.engine.plan import CANCEL, DUE
from lockstep.engine.record import HEADER, HEADER_BYTES, Kind, aligned, decode_at
from lockstep.engine.restored import (
    ACTIVE,
    UNKNOWN,
    Asked,
    Kept,
    PastCancel,
    Queued,
    Restored,
    Score,
)
from lockstep.engine.wire import FromEngine

_INTERESTING = frozenset({Kind.TICKET, Kind.REVOKE, Kind.EFFECT})

_Head = tuple[int, int, int, int, int, int, int]


class Known(NamedTuple):
    """What must be found in a part of a record, for the rest of it not to be needed.

    Attributes:
        unanswered: Tickets, at least those whose END is not recorded.
        used: Slots to which a request was admitted, or a row moved, since they were last known to
            be free.
    """

    unanswered: tuple[int, ...]
    used: tuple[Key, ...]


def restore(
    past: Past, fleet: Fleet, *, slab_lost: bool = True, known: Known | None = None
) -> Restored:
    """The planner's state behind the last step of a record.

    Args:
        past: The record so far. Steps that were reported and are not in the history yet count, if
            the caller puts them behind it: everything they follow from is there. The newest part
            of it does in strict order, if nothing has to be computed again.
        fleet: What ran.
        slab_lost: Whether keys and values have to be computed again.
        known: Of a part: what must be in it.

    Raises:
        JournalCorrupt: the record does not hold what it must.
        Earlier: the part of it is too short.
    """
    strict = fleet.schedule.order == "strict"
    if not past.whole and (slab_lost or known is None or not strict):
        # What is computed again may have been computed at the very beginning. What arrival order
        # chose lies beside the history, and may lie before what it was chosen for.
        raise Earlier("the whole record is needed")
    tail = _Tail(fleet, past.kept)
    _backwards(past.entries, tail.step)
    lineage = Lineage(tail.kept() if slab_lost else ())
    if not lineage.is_complete():
        _backwards(past.entries, lambda n, _, rows: lineage.step(n, rows))
        lineage.check()
        tail.want(lineage.tickets)
    # What arrival order took is met again: which of several cancels it was is told by the tags.
    _backwards(past.entries, None if strict else tail.taken, tail.tags)
    if not past.whole and known is not None:
        tail.check(known, past, fleet.schedule.lookahead)
    restored = tail.restored()
    again = Forward(fleet, past.entries, lineage.needed).again()
    return replace(restored, again=tuple(again))


def _backwards(
    entries: Sequence[bytes],
    step: Callable[[int, int, list[Row]], None] | None,
    tags: Callable[[int, bytes], None] | None = None,
) -> None:
    """Hand over (entry, step, its rows) of steps, (step of the tag, entry) of tags; last first.

    Raises:
        JournalCorrupt: an entry cannot be read.
    """
    for number in range(len(entries) - 1, -1, -1):
        entry = entries[number]
        try:
            head = HEADER.unpack_from(entry, 0)
            if head[1] != Kind.STEP:
                if tags is not None:
                    tags(head[3], entry)
            elif step is not None:
                step(number, head[3], rows_of(entry))
        except (struct.error, ProtocolError, ValueError) as error:
            raise JournalCorrupt(f"entry {number} of the history cannot be read: {error}") from None


@dataclass(slots=True)
class _Growing:
    """What was met of a row before its admission.

    Attributes:
        final: The slot that holds it at the end; None: it was written over since.
        filled: Prompt tokens.
        tokens: That it was given, the last first.
        computed: Prompt tokens that came of chunks; others were found or copied.
        shared: Tokens of its hit that others may copy, where not all are.
        from_one: Whether its prompt begins with a chunk of one token: others may copy nothing.
        ended: Step in which it ended, while its ticket went on.
    """

    final: Key | None
    filled: int = 0
    computed: int = 0
    tokens: list[int] = field(default_factory=list)
    shared: int | None = None
    from_one: bool = False
    ended: int = ACTIVE

    def kept(self, key: Key, ticket: int, hit: int, sample: int, ended: int) -> Kept:
        filled = max(self.filled, hit)
        shared = filled if self.shared is None else self.shared
        if self.from_one:
            shared = 0
        tokens = tuple(reversed(self.tokens))
        return Kept(*key, ticket, hit, filled, tokens, ended, sample, shared, self.computed)


class _Tail:
    """The record, read backwards: all steps, then all tags."""

    def __init__(self, fleet: Fleet, kept: Sequence[bytes]) -> None:
        self._strict = fleet.schedule.order == "strict"
        self._chosen = _Chosen(kept)
        self._last_step = -1
        self._ended: dict[int, tuple[int, int]] = {}  # Ticket -> (step, status), until it is met.
        self._answered: dict[int, None] = {}  # All that ended.
        self._growing: dict[Key, _Growing] = {}  # By the slot that it was in, where that was met.
        self._slots: dict[Key, Kept | None] = {}  # In reverse order of admission. None: free.
        self._left: list[Kept] = []  # Rows that ended before their ticket, and lost their slot.
        self._samples: dict[int, int] = {}  # Ticket -> how many got a slot.
        self._taken: dict[int, int] = {}  # Arrival order: ticket -> due step.
        self._cancels_taken: dict[int, int] = {}
        self._wanted: dict[int, None] = {}  # Tickets of slots, until their TICKET is met.
        self._infers: dict[int, dict[int, Asked]] = {}  # Agent -> request -> without its record.
        self._asked: list[Asked] = []
        self._open: list[Asked] = []  # Unanswered, without their records.
        self._cancels: list[PastCancel] = []
        self._scores: list[Score] = []  # Last first.
        self._tag_step = 0  # Of the entry that is being read.

    # -- steps ----------------------------------------------------------------------------------

    def step(self, _: int, step: int, rows: list[Row]) -> None:
        """The step before those that were read."""
        if self._last_step < 0:
            self._last_step = step
        for row in reversed(rows):
            op, model, slot, ticket, a, b = row
            if op == FromEngine.END:
                self._ended[ticket] = (step, a)
                self._answered[ticket] = None
            elif op == FromEngine.SCORE:
                if ticket not in self._answered:  # Its fields are not those of a row.
                    self._scores.append(Score(ticket, model, slot, a, b))
            elif op == FromEngine.MOVE:
                self._moved((model, slot), (model, ticket))
            elif op == FromEngine.LEAVE:
                self._at((model, slot)).ended = step
            elif op == FromEngine.ADMIT:
                self._admitted(row)
            elif op != FromEngine.TAKEN:
                _grow(self._at((model, slot)), row)

    def _at(self, key: Key) -> _Growing:
        """The row that was in a slot then."""
        found = self._growing.get(key)
        if found is None:
            found = self._growing[key] = _Growing(key)
        return found

    def _moved(self, key: Key, source: Key) -> None:
        """Before this, what is in a slot was in another one, and that is nobody's since."""
        self._free(self._at(source))
        self._growing[source] = self._at(key)
        self._growing[key] = _Growing(None)

    def _free(self, growing: _Growing) -> None:
        if growing.final is not None:
            self._slots[growing.final] = None

    def _admitted(self, row: Row) -> None:
        _, model, slot, ticket, hit, sample = row
        key = model, slot
        growing = self._at(key)
        self._growing[key] = _Growing(None)
        self._samples[ticket] = max(self._samples.get(ticket, 0), sample + 1)
        ended, status = growing.ended, 0
        if ended == ACTIVE:
            ended, status = self._ended.get(ticket, (ACTIVE, 0))
        kept = growing.kept(growing.final or key, ticket, hit, sample, ended)
        if ended != ACTIVE and (sample or status == INVALID):
            # Without a conversation to keep, or emptied, so that nobody takes a poisoned prefix.
            self._free(growing)
        elif growing.final is not None:
            self._slots[growing.final] = kept
            self._wanted[ticket] = None
            return
        if ticket not in self._answered:
            self._left.append(kept)

    def kept(self) -> tuple[Kept, ...]:
        """Slots that hold something, in the order of admission."""
        return tuple(slot for slot in reversed(self._slots.values()) if slot is not None)

    def want(self, tickets: Iterable[int]) -> None:
        """Requests that are needed, answered or not."""
        self._wanted.update(dict.fromkeys(tickets))

    # -- tags -----------------------------------------------------------------------------------

    def taken(self, entry: int, step: int, rows: list[Row]) -> None:
        """What a step took in, between tags."""
        for op, what, _, ticket, due, _ in reversed(rows):
            if op == FromEngine.TAKEN and what == DUE:
                self._taken[ticket] = due
            elif op == FromEngine.TAKEN:
                self._cancels_taken[ticket] = self._cancels_taken.get(ticket, 0) + 1
                self._chosen.cancel_taken(ticket)

    def tags(self, step: int, entry: bytes) -> None:
        """The tags before those that were read."""
        self._tag_step = step
        for offset, record in reversed(list(_records(entry))):
            self._record(entry, offset, record)

    def _record(self, entry: bytes, offset: int, head: _Head) -> None:
        kind, id, peer = head[1], head[3], head[5]
        if kind == Kind.TICKET:
            due, ordinal, request = TICKET_PAYLOAD.unpack_from(entry, offset + HEADER_BYTES)
            self._ticket(id, peer, due, ordinal, request)
        elif kind == Kind.REVOKE:
            due = int.from_bytes(entry[offset + HEADER_BYTES : offset + HEADER_BYTES + 8], "little")
            self._revoke(id, due)
        elif self._infers.get(peer):
            end = offset + head[0]
            self._effect(entry[offset + HEADER_BYTES : end], self._infers[peer])

    def _ticket(self, number: int, agent: int, due: int, ordinal: int, request: int) -> None:
        answered = self._ended.pop(number, None) is not None
        wanted = number in self._wanted
        self._wanted.pop(number, None)
        if not self._strict:
            due = self._taken.pop(number, self._chosen.due(number))
        if answered and not wanted:
            return
        asked = Asked(number, agent, due, ordinal, b"", self._tag_step)
        self._infers.setdefault(agent, {})[request] = asked
        if not answered:
            self._open.append(asked)

    def _revoke(self, ticket: int, due: int) -> None:
        if self._strict:
            if due > self._last_step:
                self._cancels.append(PastCancel(ticket, due, self._tag_step))
        elif self._cancels_taken.get(ticket):
            self._cancels_taken[ticket] -= 1
        else:
            self._cancels.append(PastCancel(ticket, UNKNOWN, self._tag_step))

    def _effect(self, records: bytes, wanted: dict[int, Asked]) -> None:
        """A turn of an agent: the latest before a ticket that has its INFER is the one."""
        for offset, head in _records(records, frozenset({Kind.INFER})):
            asked = wanted.pop(head[3], None)
            if asked is not None:
                record = records[offset : offset + aligned(head[0])]
                self._asked.append(asked._replace(record=record))

    # -- the end --------------------------------------------------------------------------------

    def check(self, known: Known, past: Past, lookahead: int) -> None:
        """Whether everything that counts has been met, though it was only a part of the record.

        Raises:
            Earlier: no.
        """
        met = {asked.ticket: None for asked in self._open}
        lost: list[object] = [key for key in known.used if key not in self._slots]
        lost += [number for number in known.unanswered if number not in met | self._answered]
        lost += [*self._wanted, *(agent for agent, infers in self._infers.items() if infers)]
        # A cancel is due so many steps behind its tag: all that may still be to come are here.
        first = place_of(past.entries[0])[0] if past.entries else 0
        if lost or self._last_step < 0 or first + lookahead > self._last_step:
            raise Earlier(f"{len(lost)} slots and requests, or cancels, lie before")
        self._ended.clear()  # Of tickets that lie before, and that no slot holds any more.

    def restored(self) -> Restored:
        """What was found.

        Raises:
            JournalCorrupt: a ticket or its request is missing.
        """
        lost = [asked.ticket for infers in self._infers.values() for asked in infers.values()]
        lost += list(self._wanted) + list(self._ended)
        if lost:
            raise JournalCorrupt(f"ticket {min(lost)}: the record has no request for it")
        queued: list[Queued] = []
        offered: list[int] = []
        for asked in reversed(self._open):
            samples = self._samples.get(asked.ticket, 0)
            if samples or UNKNOWN < asked.due <= self._last_step:
                queued.append(Queued(asked.ticket, samples))
            else:
                offered.append(asked.ticket)
        return Restored(
            last_step=self._last_step,
            asked=tuple(sorted(self._asked)),
            kept=self.kept(),
            queued=tuple(queued),
            offered=tuple(offered),
            cancels=tuple(self._chosen.cancels(reversed(self._cancels))),
            scores=tuple(reversed(self._scores)),
            left=tuple(reversed(self._left)),
        )


def _grow(growing: _Growing, row: Row) -> None:
    """Book what a row was given, read backwards."""
    op, _, _, _, a, b = row
    if op == FromEngine.TOKEN:
        growing.tokens.append(a)
    elif op == FromEngine.SHARE:
        growing.shared = a
    elif op in (FromEngine.CHUNK, FromEngine.COPY):
        growing.filled = max(growing.filled, a + b)
        growing.from_one |= op == FromEngine.CHUNK and (a, b) == (0, 1)
        growing.computed += b if op == FromEngine.CHUNK else 0


class _Chosen:
    """What arrival order chose, as it was kept: for what the steps do not show yet."""

    def __init__(self, kept: Sequence[bytes]) -> None:
        self._dues: dict[int, int] = {}
        self._cancels: dict[int, list[int]] = {}
        for data in kept:
            record, _ = decode_at(data, 0)
            if record.kind == Kind.ORDERED and record.flags == DUE:
                self._dues[record.id] = record.item
            elif record.kind == Kind.ORDERED and record.flags == CANCEL:
                self._cancels.setdefault(record.id, []).append(record.item)

    def due(self, ticket: int) -> int:
        return self._dues.get(ticket, UNKNOWN)

    def cancel_taken(self, ticket: int) -> None:
        """A recorded step shows one: the first that was chosen is used up."""
        if self._cancels.get(ticket):
            del self._cancels[ticket][0]

    def cancels(self, pending: Iterator[PastCancel]) -> Iterator[PastCancel]:
        """Pending ones, in order, with the steps chosen for them."""
        for cancel in pending:
            steps = self._cancels.get(cancel.ticket)
            yield cancel._replace(due=steps.pop(0)) if steps and cancel.due == UNKNOWN else cancel


def _records(data: bytes, kinds: frozenset[Kind] = _INTERESTING) -> Iterator[tuple[int, _Head]]:
    """(offset, header) of the records of some kinds, in order."""
    offset, end = 0, len(data)
    while offset < end:
        head = HEADER.unpack_from(data, offset)
        if head[0] < HEADER_BYTES:
            raise ValueError(f"record at byte {offset} of {head[0]} bytes")
        if head[1] in kinds:
            yield offset, head
        offset += aligned(head[0])
