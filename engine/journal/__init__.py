"""The journal: the run as append-only, hash-chained segments."""

from lockstep.engine.journal.reader import End, Frame, JournalReader, Scan, Segment
from lockstep.engine.journal.writer import JournalWriter, Sink

__all__ = ["End", "Frame", "JournalReader", "JournalWriter", "Scan", "Segment", "Sink"]
