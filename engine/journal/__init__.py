"""The journal: the run as append-only, hash-chained segments."""

from lockstep.engine.journal.parts import End, Frame, Mark, Segment, Span
from lockstep.engine.journal.reader import JournalReader, Scan
from lockstep.engine.journal.writer import JournalWriter, Sink

__all__ = [
    "End",
    "Frame",
    "JournalReader",
    "JournalWriter",
    "Mark",
    "Scan",
    "Segment",
    "Sink",
    "Span",
]
