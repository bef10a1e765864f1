"""Parts of a journal, as they are handed about: segments, frames, places between frames."""

from typing import NamedTuple

from lockstep.engine.journal.format import SegmentHeader

MARK_FRAMES = 256  # From one mark to the next.


class Segment(NamedTuple):
    """One segment in memory.

    Attributes:
        where: Its name, for messages.
        number: As its name says, from 0.
        data: Its bytes.
        last: Whether no segment follows it.
    """

    where: str
    number: int
    data: bytes
    last: bool


class Frame(NamedTuple):
    """One frame: its number, its place in its segment, kind and body, the segment's number."""

    number: int
    offset: int
    kind: int
    body: bytes
    segment: int = 0


class End(NamedTuple):
    """Where the whole part of a journal ends, and what is behind it.

    Attributes:
        segment: Number of the last segment that counts.
        offset: Bytes of it that count.
        frames: How many there are in all.
        link: ``previous`` of the next frame.
        torn_bytes: Bytes that do not count.
        drop: A segment after ``segment`` is one of which nothing counts.
        why: Why they do not; empty: nothing is torn.
    """

    segment: int
    offset: int
    frames: int
    link: bytes
    torn_bytes: int = 0
    drop: bool = False
    why: str = ""


class Mark(NamedTuple):
    """A place between two frames of a journal: reading may begin or end there.

    Attributes:
        segment: Number of the segment.
        sequence: Number of its first frame.
        offset: Of the place in it.
        frames: How many lie before it.
        entries: How many of them are history.
        link: ``previous`` of the frame behind it.
    """

    segment: int
    sequence: int
    offset: int
    frames: int
    entries: int
    link: bytes


class Span(NamedTuple):
    """A part of a journal whose ends are known: it has no torn tail.

    Attributes:
        header: Of the first segment of the journal.
        begin: Where it begins.
        until: Where it ends.
    """

    header: SegmentHeader
    begin: Mark
    until: Mark
