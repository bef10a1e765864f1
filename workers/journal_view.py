"""Looking at a journal, segment by segment and frame by frame: what `lockstep journal` shows.

Read-only, and never more than one segment in memory. A run that is running now is seen as far as
its last whole frame.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lockstep.engine.compare import ended
from lockstep.engine.errors import JournalCorrupt, ProtocolError, UsageError
from lockstep.engine.journal import Frame
from lockstep.engine.journal import format as fmt
from lockstep.engine.record import Kind, decode, decode_at
from lockstep.engine.strict_json import loads
from lockstep.workers import folder as folders
from lockstep.workers.export import kind_name
from lockstep.workers.journal_file import segment_name
from lockstep.workers.journal_reading import scan_journal
from lockstep.workers.lineage import FORK
from lockstep.workers.recorded import read

WHOLE, TORN, DAMAGED = "whole", "torn", "damaged"


@dataclass
class SegmentRow:
    """One segment: its file, what is in it, and the first and last place of its history."""

    file: str
    bytes: int
    frames: int = 0
    entries: int = 0
    first: str | None = None
    last: str | None = None


@dataclass
class View:
    """What a journal holds.

    Attributes:
        run: Its run folder.
        header: Of its first segment, for people: run id, format, flags.
        segments: One row each.
        records: How many of each kind.
        frames: How many.
        entries: Of history.
        last: Place of the last one.
        digest: Of identity and history; empty for a fork, of which not all lies in this journal.
        fork: What a fork shares: run id, step and entries of its parent; None: it is none.
        ended: The run has come to its end.
        torn_bytes: At the end, which do not count.
        torn: Why they do not.
        running: Pid of the process that runs it now; None: nobody does.
    """

    run: Path
    header: dict[str, Any] = field(default_factory=dict)
    segments: list[SegmentRow] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    entries: int = 0
    last: str | None = None
    digest: str = ""
    fork: dict[str, Any] | None = None
    ended: bool = False
    torn_bytes: int = 0
    torn: str = ""
    running: int | None = None


@dataclass(frozen=True)
class Check:
    """The verdict on a journal.

    Attributes:
        state: "whole", "torn" (only its end, which `resume` cuts) or "damaged" (nothing is
            changed, and nothing goes on from it).
        text: Why, with the place.
        view: What is in it, as far as it could be read.
    """

    state: str
    text: str
    view: View


def view(run: Path) -> View:
    """Everything of a journal but its bodies.

    Raises:
        UsageError: there is none.
        JournalCorrupt, JournalVersion: it is damaged, or another version's.
    """
    made = View(run)
    _look(run, made)
    return made


def check(run: Path) -> Check:
    """Read every byte of a journal, and say whether it can be relied on.

    Raises:
        UsageError: there is none.
        JournalVersion: it is another version's.
    """
    found = View(run)
    try:
        _look(run, found)
        _check_summary(run, found)
    except JournalCorrupt as error:
        return Check(DAMAGED, str(error), found)
    if found.torn and found.running is None:
        text = (
            f"{found.torn_bytes} bytes at its end do not count ({found.torn}); what they began "
            "to say was not acknowledged, and resume cuts them"
        )
        return Check(TORN, text, found)
    return Check(WHOLE, _state(found), found)


def _state(found: View) -> str:
    if found.ended:
        return "the run has come to its end"
    if found.running is not None:
        return f"process {found.running} is running it"
    return "the run had not come to its end; resume goes on with it"


def _look(run: Path, found: View) -> None:
    # Who runs it is asked first: a run that ends meanwhile is whole, not torn.
    found.running = folders.holder_of(run)
    reading = scan_journal(run)
    digest = hashlib.sha256()
    try:
        for frame in reading.frames():
            _count(frame, found, run)
            if frame.kind in (fmt.IDENTITY, fmt.HISTORY):
                digest.update(frame.body)
    finally:
        found.torn_bytes, found.torn = reading.end.torn_bytes, reading.end.why
        found.digest = "" if found.fork else digest.hexdigest()
        if reading.header is not None:
            header = reading.header
            found.header = {
                "run_id": header.run_id.hex(), "format": header.format, "flags": header.flags,
            }  # fmt: skip
    if found.frames < 2:
        raise JournalCorrupt(
            f"{run}: the journal ends before identity and environment: there is no run in it"
        )


def _count(frame: Frame, found: View, run: Path) -> None:
    if frame.number == 0:
        found.fork = _shared(frame)
    expected = {0: fmt.IDENTITY, 1: fmt.ENVIRONMENT}.get(frame.number)
    if expected is not None and frame.kind != expected:
        raise JournalCorrupt(f"{run}: the journal does not begin with identity and environment")
    if len(found.segments) <= frame.segment:
        path = run / folders.JOURNALS / segment_name(frame.segment)
        found.segments.append(SegmentRow(path.name, path.stat().st_size))
    row = found.segments[frame.segment]
    row.frames += 1
    found.frames += 1
    try:
        for record in decode(frame.body):
            name = kind_name(record.kind)
            found.records[name] = found.records.get(name, 0) + 1
    except ProtocolError as error:
        raise JournalCorrupt(
            f"{run}: frame {frame.number} is whole, and what it holds are no records: {error}"
        ) from None
    if frame.kind == fmt.HISTORY:
        place = place_of(frame.body)
        row.entries, row.first, row.last = row.entries + 1, row.first or place, place
        found.entries, found.last = found.entries + 1, place
        found.ended = ended([frame.body])


def _shared(frame: Frame) -> dict[str, Any] | None:
    try:
        identity = loads(next(decode(frame.body)).payload)
        fork = identity.get(FORK) if isinstance(identity, dict) else None
        return {key: fork[key] for key in ("run_id", "at", "entries")} if fork else None
    except (ProtocolError, StopIteration, ValueError, KeyError, TypeError) as error:
        raise JournalCorrupt(f"the journal's identity cannot be read: {error}") from None


def place_of(entry: bytes) -> str:
    """``12.3`` of a tag's entry, ``step 12`` of a step's."""
    first, _ = decode_at(entry, 0)
    return f"{first.id}.{first.peer}" if first.kind == Kind.TAG else f"step {first.id}"


def frames(run: Path) -> Iterator[Frame]:
    """Every whole frame, in order. Errors as `view`."""
    return scan_journal(run).frames()


def _check_summary(run: Path, found: View) -> None:
    """A run that was closed says with which digest; frames that are gone at its end are damage."""
    path = run / folders.SUMMARY
    if found.running is not None or not path.is_file():
        return
    try:
        booked = json.loads(path.read_bytes())["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: is not the summary of a run: {error}") from None
    digest = found.digest or read(run).digest  # A fork's past lies elsewhere.
    if booked != digest:
        raise JournalCorrupt(
            f"{run}: the journal holds a history of digest {digest}, the run was closed "
            f"with {booked}: frames are missing at its end, or it is another run's"
        )
