"""The past: what a record says happened, agent by agent and step by step, to be repeated.

Everything that brings somebody back to the present is in the history: an agent's wakes and what
it did in each, the steps of the inference process and their answers. Here it is only read; who
repeats it, and compares, is the business of engine/replay.py and of the processes.
"""

import struct
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np

from lockstep.engine import compare
from lockstep.engine import tag as tags
from lockstep.engine.effects import Turn, was_refused
from lockstep.engine.errors import JournalCorrupt, ProtocolError
from lockstep.engine.fallback import from_outside
from lockstep.engine.order import EFFECT
from lockstep.engine.outside import Outside, What, from_record
from lockstep.engine.past_index import Index, Place, corrupt, header
from lockstep.engine.record import (
    HEADER,
    HEADER_BYTES,
    PEER_NONE,
    TAKES_EFFECT,
    Kind,
    Outcome,
    Record,
    aligned,
    decode,
    decode_at,
)
from lockstep.engine.tag import ORIGIN, Tag
from lockstep.engine.wire import RESULT_SLOT, FromEngine, StepReport, step_report

_OP = struct.Struct("<H")  # Of a slot.
_SHOWN_BYTES = 80
_OUTCOMES = frozenset(int(outcome) for outcome in Outcome)


class PastTurn(NamedTuple):
    """One turn of an agent, as recorded.

    Attributes:
        number: From 0, which nobody woke: `events` is empty and no WAKE is sent for it.
        tag: At which it began.
        events: Records it was woken with, as `encode_wake` takes them.
        count: How many.
        fuel: Of the turn; 0 while no effect is recorded.
        outcome: None: no effect is recorded, the turn was not over.
        records: What it wrote.
        reason: Why it failed, without the name of the outcome.
    """

    number: int
    tag: Tag
    events: bytes
    count: int  # type: ignore[assignment]
    fuel: int
    outcome: int | None
    records: bytes
    reason: str


class Earlier(LookupError):
    """What was asked for lies before this part of the record: a longer part may have it."""


class Past:
    """What was recorded of a run, or the newest part of it.

    Args:
        entries: Bodies of the history's entries, in order.
        kept: Records that the journal kept besides (OUTSIDE, ORDERED), as written.
        skipped: None: this is all. Else how many entries lie before these; then an agent is known
            from the first turn on whose wake is here, and whatever depends on more than what is
            here raises `Earlier`.

    Reading is lazy: the first question costs one pass over all entries.

    Raises:
        JournalCorrupt: by any method: an entry is not what an entry is.
        Earlier: by any method, of a part.
    """

    def __init__(
        self, entries: Sequence[bytes], kept: Sequence[bytes] = (), skipped: int | None = None
    ) -> None:
        self.entries = entries
        self.kept = kept
        self.skipped = skipped

    @property
    def whole(self) -> bool:
        """Whether nothing lies before it."""
        return self.skipped is None

    def turns(self, agent: int) -> list[PastTurn]:
        """Every recorded turn of an agent, turn 0 first; only the last may have no effect."""
        return [self.turn(agent, n) for n in range(self.count(agent))]

    def count(self, agent: int) -> int:
        """How many turns of an agent have begun: the number of the last one and one more."""
        life = self._index.lives.get(agent)
        if life is None:
            self._need_whole(f"agent {agent}'s last turn")
            return 0
        return life.first + len(life.wakes)

    def ended_count(self, agent: int) -> int:
        """How many turns of an agent have their effects here: `count`, or one less."""
        count = self.count(agent)
        life = self._index.lives.get(agent)
        return 0 if life is None else count - len(life.wakes) + len(life.effects)

    def reaches(self, agent: int, number: int) -> bool:
        """Whether an agent's turns are here from this one on; there may be none of them yet."""
        life = self._index.lives.get(agent)
        if life is None:
            return self.whole
        return number >= life.first

    def turn(self, agent: int, number: int) -> PastTurn:
        """One recorded turn.

        Raises:
            IndexError: it is not in the record.
        """
        if not 0 <= number < self.count(agent):
            raise IndexError(f"agent {agent} has no turn {number} in the record")
        wake = self._place(self._index.lives[agent].wakes, agent, number)
        assert wake is not None
        events = self._payload(wake)
        tag = place_of(self.entries[wake.entry])
        count = self._count_of(events, wake.entry)
        done = self.effect(agent, number)
        if done is None:
            return PastTurn(number, tag, events, count, 0, None, b"", "")
        return PastTurn(
            number, tag, events, count, done.fuel, done.outcome, done.records, done.reason
        )

    def effect(self, agent: int, number: int) -> Turn | None:
        """What a turn did, as the sequencer takes it; None: it is not recorded."""
        if not self.has_effect(agent, number):
            return None
        at = self._place(self._index.lives[agent].effects, agent, number)
        assert at is not None
        _, _, outcome, _, fuel, _, _ = HEADER.unpack_from(self.entries[at.entry], at.offset)
        if outcome not in _OUTCOMES:
            raise self._corrupt(at.entry, f"outcome {outcome} of agent {agent}'s turn {number}")
        reason = "" if outcome in TAKES_EFFECT else self._reason(agent, at.entry)
        return Turn(number, fuel, outcome, reason, self._payload(at))

    def has_effect(self, agent: int, number: int) -> bool:
        """Whether the record has what a turn did."""
        return number < self.ended_count(agent)

    def steps(self) -> Iterator[StepReport]:
        """Every recorded step, in order."""
        self._need_whole("the first step")
        return (report_of(self.entries[number]) for number in self._index.steps)

    @property
    def last_step(self) -> int:
        """The last executed step that is recorded, -1 before the first."""
        steps = self._index.steps
        if not steps:
            self._need_whole("the last step")
        return place_of(self.entries[steps[-1]])[0] - 1 if steps else -1

    @cached_property
    def ended(self) -> bool:
        """Whether the run came to its end: the last entry has its STOP."""
        if not self.entries:
            self._need_whole("the last entry")
        return compare.ended(self.entries)

    @cached_property
    def outside(self) -> list[Outside]:
        """Outside events that were kept, whether they have taken effect or not."""
        self._need_whole("the first outside event")
        return [from_record(r) for r in self._kept_records() if r.kind == Kind.OUTSIDE]

    def before(self, cut: Tag) -> "Past":
        """The past of everything before a tag: tags below it, steps below its step.

        What was kept for later is left out: outside events and choices of arrival order at the
        tag or behind it never happened in this past.
        """
        count = 0
        for body in self.entries:
            if not _is_before(body, cut):
                break
            count += 1
        if not count:
            self._need_whole(f"what is before tag {tags.text(cut)}")
        pairs = zip(self.kept, self._kept_records(), strict=True)
        kept = [data for data, record in pairs if _belongs(record, cut)]
        return Past(self.entries[:count], kept, self.skipped)

    @cached_property
    def _index(self) -> Index:
        return Index(self.entries, self.skipped)

    def _need_whole(self, what: str) -> None:
        """Raises: Earlier."""
        if self.skipped is not None:
            raise Earlier(f"{what} lies before entry {self.skipped} of the history, or nowhere")

    def _place(self, places: list[Place], agent: int, number: int) -> Place:
        first = self._index.lives[agent].first
        if number < first:
            raise Earlier(f"turn {number} of agent {agent} lies before its turn {first}")
        return places[number - first]

    def _count_of(self, events: bytes, entry: int) -> int:
        """How many records there are."""
        offset, count, end = 0, 0, len(events)
        while offset < end:
            offset += aligned(header(events, offset, (self.skipped or 0) + entry)[0])
            count += 1
        return count

    def _kept_records(self) -> Iterator[Record]:
        return (decode_at(data, 0)[0] for data in self.kept)

    def _payload(self, place: Place) -> bytes:
        body = self.entries[place.entry]
        size = HEADER.unpack_from(body, place.offset)[0]
        return body[place.offset + HEADER_BYTES : place.offset + size]

    def _reason(self, agent: int, entry: int) -> str:
        """Why the agent failed: its FAILED record lies in the entry of the failed effect."""
        place = self._index.failures.get(agent)
        if place is None or place.entry != entry:
            what = f"agent {agent} has a failed turn and no FAILED record"
            raise self._corrupt(entry, what)
        text = self._payload(place).decode("utf-8", "replace")
        return text.partition(": ")[2]

    def _corrupt(self, entry: int, what: str) -> JournalCorrupt:
        return corrupt((self.skipped or 0) + entry, what)


class Life(Sequence[PastTurn]):
    """Turns of one agent, each read when it is asked for. Nothing of it is kept here.

    Args:
        past: Where they are recorded; asking for one before it raises `Earlier`.
        agent: By index.
        count: How many there are, turn 0 first.
    """

    def __init__(self, past: Past, agent: int, count: int) -> None:
        self._past, self._agent, self._count = past, agent, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> PastTurn: ...
    @overload
    def __getitem__(self, number: slice) -> list[PastTurn]: ...
    def __getitem__(self, number: int | slice) -> PastTurn | list[PastTurn]:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(self._count))]
        at = number + self._count if number < 0 else number
        if not 0 <= at < self._count:
            raise IndexError(f"turn {number} of {self._count}")
        return self._past.turn(self._agent, at)


def same_turn(past: PastTurn, turn: Turn) -> str:
    """What a repeated turn did otherwise than the record says, for people; empty: nothing.

    A turn that the sequencer failed is recorded as failed while its process ended it regularly:
    what it wrote and burnt is compared all the same.
    """
    if turn.number != past.number:
        return f"it was turn {turn.number}, recorded is turn {past.number}"
    if past.outcome is None:
        return ""
    if turn.records != past.records:
        return _first_record(past.records, turn.records)
    if turn.fuel != past.fuel:
        return f"it burnt {turn.fuel} fuel, recorded are {past.fuel}"
    if _failed_by_sequencer(past):
        return ""
    now, then = _ending(turn.outcome, turn.reason), _ending(past.outcome, past.reason)
    return "" if now == then else f"it ended as {now}, recorded is {then}"


def report_of(body: bytes) -> StepReport:
    """The report that the entry of a step was made of (engine/history.py).

    Raises:
        JournalCorrupt: it is none.
    """
    try:
        (step,) = decode(body)
        if step.kind != Kind.STEP:
            raise ProtocolError(f"a record of kind {step.kind}")
        stop = _slots_end(step.payload)
        slots = np.frombuffer(step.payload, RESULT_SLOT, stop // RESULT_SLOT.itemsize)
        report = step_report(slots, step.payload[stop:])
    except (ProtocolError, ValueError) as error:
        raise JournalCorrupt(f"the entry of a step cannot be read: {error}") from None
    if report.step != step.id:
        raise JournalCorrupt(f"the entry of step {step.id} holds the report of step {report.step}")
    return report


def place_of(body: bytes) -> Tag:
    """Where an entry lies: its tag; of step ``s`` the first tag behind it, ``(s + 1, 0)``."""
    _, kind, _, id, _, peer, _ = header(body, 0, -1)
    return (id + 1, 0) if kind == Kind.STEP else (id, peer)


def behind(entries: Sequence[bytes]) -> Tag:
    """The first tag that may follow on the entries: whatever is not in them comes there or later.

    All tags up to a step are closed before the step's entry (rule 7).
    """
    if not entries:
        return ORIGIN
    step, micro = place_of(entries[-1])
    return (step, micro) if header(entries[-1], 0, -1)[1] == Kind.STEP else (step, micro + 1)


def _is_before(body: bytes, cut: Tag) -> bool:
    step, micro = place_of(body)
    is_step = header(body, 0, -1)[1] == Kind.STEP
    return (step, micro) <= cut if is_step else (step, micro) < cut


def _belongs(record: Record, cut: Tag) -> bool:
    """Whether what was kept takes effect before the cut."""
    if record.kind == Kind.OUTSIDE:
        if record.flags == What.PROVIDER:  # It decides about steps, wherever it is told.
            return from_outside(from_record(record)).step < cut[0]
        return (record.item, record.peer) < cut
    if record.flags == EFFECT:
        return (record.item, int.from_bytes(record.payload, "little")) < cut
    return record.item < cut[0]


def _slots_end(payload: bytes) -> int:
    """Offset behind the STEP slot.

    Raises:
        ProtocolError: there is none.
    """
    size = RESULT_SLOT.itemsize
    for offset in range(0, len(payload) - size + 1, size):
        if _OP.unpack_from(payload, offset)[0] == FromEngine.STEP:
            return offset + size
    raise ProtocolError("no STEP slot")


def _failed_by_sequencer(past: PastTurn) -> bool:
    """Whether the turn's process may have ended it otherwise."""
    if past.outcome != Outcome.PROTOCOL or was_refused(past.reason):
        return past.outcome == Outcome.PROTOCOL
    try:
        for _ in decode(past.records):
            pass
    except ProtocolError:
        return True  # A process fails a turn whose records are none before they leave it.
    return False


def _ending(outcome: int, reason: str) -> str:
    name = Outcome(outcome).name.lower().replace("_", " ")
    return f"{name} ({reason})" if outcome not in TAKES_EFFECT else name


def _first_record(past: bytes, now: bytes) -> str:
    """The first record that differs, for people."""
    try:
        then_all, now_all = list(decode(past)), list(decode(now))
    except ProtocolError:
        return f"it wrote {len(now)} bytes, recorded are {len(past)} others"
    for number, (then, ours) in enumerate(zip(then_all, now_all, strict=False)):
        if then != ours:
            return f"its record {number} is {_shown(ours)}, recorded is {_shown(then)}"
    return f"it wrote {len(now_all)} records, recorded are {len(then_all)}"


def _shown(record: Record) -> str:
    name = Kind(record.kind).name if record.kind in Kind.__members__.values() else str(record.kind)
    peer = "nobody" if record.peer == PEER_NONE else str(record.peer)
    head = f"{name} id {record.id} item {record.item} peer {peer} flags {record.flags}"
    more = "..." if len(record.payload) > _SHOWN_BYTES else ""
    return f"{head} {record.payload[:_SHOWN_BYTES]!r}{more}"
