"""Journal writer: frames into a sink, chained. It knows no file; the sink does."""

from typing import Protocol

from lockstep.engine.errors import JournalError
from lockstep.engine.journal import format as fmt
from lockstep.engine.journal.reader import End
from lockstep.engine.version import JOURNAL_FORMAT, LOGIC_FLAGS


class Sink(Protocol):
    """Where the bytes go: a file, or memory in tests."""

    def write(self, data: bytes) -> None:
        """Take all of ``data`` or raise."""


class JournalWriter:
    """One writer for one run.

    Attributes:
        frames: Of the run so far; they are numbered from 0.
    """

    def __init__(self, sink: Sink, run_id: bytes) -> None:
        """Begin a run's first segment."""
        self._begin(sink, fmt.SegmentHeader(JOURNAL_FORMAT, LOGIC_FLAGS, run_id, 0, 0))
        self._previous = fmt.first_link(run_id)
        self.frames = 0
        sink.write(fmt.encode_segment(self._header))

    @classmethod
    def resumed(cls, sink: Sink, header: fmt.SegmentHeader, end: End) -> "JournalWriter":
        """Go on where a journal ends.

        Args:
            sink: Behind its last whole frame.
            header: Of its first segment: a run keeps its format and flags.
            end: What the reader found.
        """
        made = cls.__new__(cls)
        made._begin(sink, header._replace(segment=end.segment))
        made._previous, made.frames = end.link, end.frames
        return made

    def _begin(self, sink: Sink, header: fmt.SegmentHeader) -> None:
        self._sink = sink
        self._header = header

    @property
    def segment(self) -> int:
        """Number of the segment that is written."""
        return self._header.segment

    def next_segment(self) -> None:
        """What the sink gets from now on is another segment: begin it."""
        self._header = self._header._replace(segment=self.segment + 1, sequence=self.frames)
        self._sink.write(fmt.encode_segment(self._header))

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
        self._previous = following
        self.frames += 1
