"""Journal writer: frames into a sink, chained. It knows no file; the sink does."""

from collections.abc import Sequence
from typing import Protocol

from lockstep.engine.errors import JournalError
from lockstep.engine.journal import format as fmt
from lockstep.engine.journal.parts import MARK_FRAMES, Mark
from lockstep.engine.journal.reader import JournalReader
from lockstep.engine.version import JOURNAL_FORMAT, LOGIC_FLAGS


class Sink(Protocol):
    """Where the bytes go: a file, or memory in tests."""

    def write(self, data: bytes) -> None:
        """Take all of ``data`` or raise."""


class _Nowhere:
    """A sink of what is not written."""

    def write(self, data: bytes) -> None:
        """Gone."""


class JournalWriter:
    """One writer for one run.

    Attributes:
        frames: Of the run so far; they are numbered from 0.
        entries: How many of them are history.
        marks: One for every `MARK_FRAMES` frames, from the first frame on.
        header: Of the run's first segment.
        segment: Number of the segment that is written.
    """

    def __init__(self, sink: Sink, run_id: bytes, flags: int = LOGIC_FLAGS) -> None:
        """Begin a run's first segment; ``flags`` are those of the rules that it is run under."""
        header = fmt.SegmentHeader(JOURNAL_FORMAT, flags, run_id, 0, 0)
        first = Mark(0, 0, fmt.SEGMENT_BYTES, 0, 0, fmt.first_link(run_id))
        self._begin(sink, header, first, [])
        sink.write(fmt.encode_segment(header))

    @classmethod
    def resumed(cls, sink: Sink, journal: JournalReader) -> "JournalWriter":
        """Go on where a journal ends.

        Args:
            sink: Behind its last whole frame.
            journal: What was read of it: a run keeps its format and flags.
        """
        made = cls(_Nowhere(), journal.header.run_id)  # The segment has begun already.
        made._begin(sink, journal.header, journal.here, journal.marks)
        return made

    def _begin(
        self, sink: Sink, header: fmt.SegmentHeader, here: Mark, marks: Sequence[Mark]
    ) -> None:
        self._sink = sink
        self.header = header
        self.segment, self._sequence, self._offset = here.segment, here.sequence, here.offset
        self.frames, self.entries, self._previous = here.frames, here.entries, here.link
        self.marks = [*marks]

    @property
    def here(self) -> Mark:
        """Behind the last frame."""
        return Mark(
            self.segment, self._sequence, self._offset, self.frames, self.entries, self._previous
        )

    def next_segment(self) -> None:
        """What the sink gets from now on is another segment: begin it."""
        self.segment += 1
        self._sequence, self._offset = self.frames, fmt.SEGMENT_BYTES
        header = self.header._replace(segment=self.segment, sequence=self.frames)
        self._sink.write(fmt.encode_segment(header))

    def append(self, kind: int, body: bytes) -> None:
        """Append one frame.

        Raises:
            JournalError: the body is longer than a reader would believe, or from the sink;
                nothing of the frame counts then.
        """
        if len(body) > fmt.BODY_BYTES_MAX:
            raise JournalError(
                f"frame {self.frames}: a body of {len(body)} bytes, at most {fmt.BODY_BYTES_MAX} "
                "fit; nothing was written"
            )
        frame, following = fmt.encode_frame(kind, body, self._previous)
        self._sink.write(frame)
        if self.frames % MARK_FRAMES == 0:
            self.marks.append(self.here)
        self._previous = following
        self._offset += len(frame)
        self.frames += 1
        self.entries += kind == fmt.HISTORY
