"""The journal: the run as an append-only, hash-chained file."""

from lockstep.engine.journal.reader import Frame, JournalReader
from lockstep.engine.journal.writer import JournalWriter, Sink

__all__ = ["Frame", "JournalReader", "JournalWriter", "Sink"]
