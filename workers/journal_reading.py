"""Reading the journal of a run folder: of a closed run, a torn one, one that is alive.

Nothing here writes. What has a torn tail is read up to it; whoever goes on with the run cuts it.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lockstep.engine.errors import JournalCorrupt, ProtocolError, UsageError
from lockstep.engine.fallback import fallbacks
from lockstep.engine.journal import JournalReader, Scan, Segment
from lockstep.engine.journal import format as journal_format
from lockstep.engine.outside import from_record
from lockstep.engine.record import Kind, decode_at
from lockstep.workers.folder import JOURNALS
from lockstep.workers.storage import Disk, Storage

_SEGMENT = re.compile(r"(\d{8})\.journal")


def segments(storage: Storage) -> Iterator[Segment]:
    """Segments of a journal's folder, read one at a time.

    Raises:
        OSError: one cannot be read.
    """
    names = [name for name in storage.names() if _SEGMENT.fullmatch(name)]
    for name in names:
        last = name == names[-1]
        yield Segment(str(storage.path / name), int(name[:8]), storage.read(name), last)


def scan_journal(run: Path) -> Scan:
    """The journal of a run folder, to be read frame by frame: one segment at a time is held.

    Raises:
        UsageError: there is none.
    """
    folder = run / JOURNALS
    try:
        names = Disk(folder).names()
    except OSError as error:
        raise UsageError(f"{run}: no run in this folder ({JOURNALS}: {error.strerror})") from None
    if not any(_SEGMENT.fullmatch(name) for name in names):
        raise UsageError(
            f"{run}: no run in this folder ({JOURNALS}: no segment): what was killed while it was "
            "made had not begun; the folder can be removed"
        )
    return Scan(_readable(folder))


def read_journal(run: Path) -> JournalReader:
    """The journal of a run folder, checked.

    Raises:
        UsageError: there is none.
        JournalCorrupt, JournalVersion: as `Scan.frames`.
    """
    return JournalReader.of(scan_journal(run))


def kept_records(journal: JournalReader, run: Path) -> list[bytes]:
    """What a run kept besides its history, record by record, as written.

    Raises:
        JournalCorrupt: a frame of them is no records.
    """
    return records_of(journal.bodies(journal_format.KEPT), run)


def records_of(bodies: Iterable[bytes], run: Path) -> list[bytes]:
    """Records of frames that are no history. Arguments and errors as `kept_records`."""
    records: list[bytes] = []
    for body in bodies:
        offset = 0
        try:
            while offset < len(body):
                record, after = decode_at(body, offset)
                if record.kind == Kind.OUTSIDE:
                    fallbacks([from_record(record)])  # Whether it says what it has to.
                elif record.kind != Kind.ORDERED:
                    raise ProtocolError(f"a record of kind {record.kind}")
                records.append(body[offset:after])
                offset = after
        except ProtocolError as error:
            raise JournalCorrupt(f"{run}: what the journal kept cannot be read: {error}") from None
    return records


def _readable(folder: Path) -> Iterator[Segment]:
    try:
        yield from segments(Disk(folder))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror}") from None
