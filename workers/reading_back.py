"""Reading back: the journal of a run that lives, from its end on, as far as somebody needs it.

What brings a part of a run back needs the newest part of its record: so the time that this takes
depends on how much that is, not on how long the run has been. Every frame that is read is checked
as ever, and must lead to where the writer is.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from lockstep.engine.journal import JournalWriter, Scan, Segment, Span
from lockstep.engine.journal import format as journal_format
from lockstep.engine.past import Earlier, Past
from lockstep.workers.journal_file import segment_name
from lockstep.workers.journal_reading import records_of
from lockstep.workers.storage import Storage

_MARKS_FIRST = 2  # The newest mark may lie right at the end.

Enough = Callable[[Past], bool]


class ReadingBack:
    """One look at a journal, while nothing is written. Each frame is read once.

    Args:
        run: The run's folder, for messages.
        storage: Of the journal.
        gathered: What the writer has written and the storage does not have yet.
        writer: Of the journal.
    """

    def __init__(self, run: Path, storage: Storage, gathered: bytes, writer: JournalWriter) -> None:
        self._run = run
        self._storage = storage
        self._gathered = gathered
        self._writer = writer
        self._marks = len(writer.marks)  # Those from there on are read.
        self._until = writer.here
        self._segment: Segment | None = None  # That `_until` is in, if it was read.
        self._entries: list[bytes] = []
        self._kept: list[bytes] = []

    def newest(self, enough: Enough | None, shared: Past) -> Past:
        """The newest part that is enough.

        Args:
            enough: Says whether a part will do; it may raise `Earlier` instead of saying no. It
                is asked with longer and longer ones, never about the whole, which has to do.
                None: the whole is needed.
            shared: What lies before the journal (of a fork); it comes last.

        Raises:
            OSError: a segment cannot be read.
            JournalCorrupt, JournalVersion: the journal is not what was written.
        """
        before, marks = len(shared.entries), _MARKS_FIRST
        while enough is not None and self._marks:
            self._widen(marks)
            past = self._past(before)
            if not past.whole and _will_do(enough, past):
                return past
            marks *= 2  # So all parts together are at most twice as long as the last one.
        self._widen(len(self._writer.marks))
        if not before:
            return self._past(0)
        return Past([*shared.entries, *self._entries], [*shared.kept, *self._kept])

    def _widen(self, marks: int) -> None:
        """Read on, back to so many marks before the end, or to the beginning."""
        first = max(len(self._writer.marks) - marks, 0)
        if first >= self._marks:
            return
        begin = self._writer.marks[first]
        span = Span(self._writer.header, begin, self._until)
        entries: list[bytes] = []
        kept: list[bytes] = []
        for frame in Scan(self._segments(begin.segment), span).frames():
            if frame.kind == journal_format.HISTORY:
                entries.append(frame.body)
            elif frame.kind == journal_format.KEPT:
                kept.append(frame.body)
        self._entries = entries + self._entries  # Those before may belong to a past by now.
        self._kept = records_of(kept, self._run) + self._kept
        self._marks, self._until = first, begin

    def _past(self, before: int) -> Past:
        """What is read so far; so many entries lie before the journal."""
        if not self._marks and not before:
            return Past(self._entries, self._kept)
        return Past(self._entries, self._kept, before + self._until.entries)

    def _segments(self, first: int) -> Iterator[Segment]:
        """From a segment on, up to what was read before; the first one is held for the next time.

        Raises:
            OSError, JournalCorrupt: one cannot be read.
        """
        held, last = self._segment, self._until.segment
        for number in range(first, last + 1):
            segment = held if held and number == held.number else self._read(number)
            if number == first:
                self._segment = segment
            yield segment

    def _read(self, number: int) -> Segment:
        name = segment_name(number)
        newest = number == self._writer.segment
        # While the last segment is synced, the next one may have no file yet.
        data = self._storage.read(name) if not newest or name in self._storage.names() else b""
        if newest:
            data += self._gathered
        return Segment(str(self._storage.path / name), number, data, newest)


def _will_do(enough: Enough, past: Past) -> bool:
    try:
        return enough(past)
    except Earlier:
        return False
