"""History: what the folder of a run says of its items, after whatever happened to its processes.

The journal is the only book of what was accepted, and the output file of what was answered. So a
service keeps neither itself: it reads them when it starts, and when a run of it has died.
"""

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lockstep.engine.compare import ended
from lockstep.engine.errors import UsageError
from lockstep.engine.items import item_of_line
from lockstep.engine.journal import Frame
from lockstep.engine.journal import format as journal_format
from lockstep.engine.journal.format import SegmentHeader
from lockstep.engine.outside import ITEMS, What, from_record
from lockstep.engine.record import Kind, decode_at
from lockstep.engine.tag import text as tag_text
from lockstep.workers import folder as folders
from lockstep.workers.identity import read_manifest
from lockstep.workers.job import Job
from lockstep.workers.journal_reading import records_of, scan_journal
from lockstep.workers.outside.inlet import SERVICE
from lockstep.workers.recorded import Recorded


class Item(NamedTuple):
    """An item as it came in.

    Attributes:
        id: As JSON.
        mark: Of its line (`mark_of`).
        event, tag: Of the outside event.
        ours: It came by the service.
    """

    id: str
    mark: bytes
    event: int
    tag: str
    ours: bool


@dataclass(frozen=True)
class History:
    """What is recorded of a run that nobody holds.

    Attributes:
        record: Of it; of its entries it has the last one.
        items: By number, from 1.
        closed: No more come by the service.
        ends: Where the lines of each item end in the output file, by number, from 0 for item 0. An
            item whose number is not below its length may have more to say.
    """

    record: Recorded
    items: list[Item]
    closed: bool
    ends: "array[int]"

    def resumption(self) -> Job:
        """The job that goes on with the run."""
        record = self.record
        return record.job(
            record.path.parent,
            mode="resume",
            past=str(record.path),
            run_dir=str(record.path),
            durability=record.durability,
            closed_from=len(self.ends),
        )


class _Opening(NamedTuple):
    """As `workers.identity.Opening`."""

    frames: list[Frame]
    header: SegmentHeader | None


def mark_of(line: bytes) -> bytes:
    """What tells one line from another: 16 bytes of a hash."""
    return hashlib.blake2b(line, digest_size=16).digest()


def read(run: Path) -> History:
    """Read it, frame by frame.

    Raises:
        UsageError: there is no run.
        JournalCorrupt, JournalVersion: the record is damaged, or another version's.
    """
    scan = scan_journal(run)
    first: list[Frame] = []
    kept: list[bytes] = []
    last = b""
    for frame in scan.frames():
        if len(first) < 2:
            first.append(frame)
        elif frame.kind == journal_format.KEPT:
            kept.append(frame.body)
        elif frame.kind == journal_format.HISTORY:
            last = frame.body
    identity, environment = read_manifest(_Opening(first, scan.header), run)
    record = Recorded(run.resolve(), identity, environment, [last], scan.end.torn_bytes)
    names = [source["name"] for source in identity["fleet"]["sources"]]
    if SERVICE not in names:
        raise UsageError(f"{run}: is no run of a service")
    items, closed = _items(records_of(kept, run), names.index(SERVICE))
    return History(record, items, closed, _ends(run, items, ended([last])))


def _items(records: Sequence[bytes], ours: int) -> tuple[list[Item], bool]:
    items: list[Item] = []
    closed = False
    for data in records:
        record = decode_at(data, 0)[0]
        if record.kind != Kind.OUTSIDE:
            continue
        event = from_record(record)
        if event.what in ITEMS:
            id = json.dumps(item_of_line(event.payload, len(items) + 1).id)
            mark, tag = mark_of(event.payload), tag_text(event.tag)
            items.append(Item(id, mark, event.number, tag, event.source == ours))
        closed = closed or (event.what == What.CLOSED and event.source == ours)
    return items, closed


def _ends(run: Path, items: Sequence[Item], whole: bool) -> "array[int]":
    """As `History.ends`: lines are in item order; an item may have any number of them."""
    ends, offset, last = array("Q", [0]), 0, len(items)
    try:
        with open(run / folders.OUTPUT, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # Torn: it is written again.
                id = json.dumps(json.loads(line).get("id"))
                at = len(ends)
                while at <= last and items[at - 1].id != id:
                    at += 1
                if at > last:
                    break  # The machine died, and the record has less: it is written again.
                ends.extend([offset] * (at - len(ends)))
                offset += len(line)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{run / folders.OUTPUT}: cannot be read: {error}") from None
    while whole and len(ends) <= last:
        ends.append(offset)
    return ends
