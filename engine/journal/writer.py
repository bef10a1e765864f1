"""Journal writer: frames into a sink, chained. It knows no file; the sink does."""

from typing import Protocol

from lockstep.engine.errors import JournalError
from lockstep.engine.journal import format as fmt
from lockstep.engine.version import JOURNAL_FORMAT, LOGIC_FLAGS


class Sink(Protocol):
    """Where the bytes go: a file, or memory in tests."""

    def write(self, data: bytes) -> None:
        """Take all of ``data`` or raise."""


class JournalWriter:
    """One writer for one run. Frames are numbered from 0."""

    def __init__(self, sink: Sink, run_id: bytes) -> None:
        self._sink = sink
        self._previous = fmt.first_link(run_id)
        self.frames = 0
        header = fmt.SegmentHeader(JOURNAL_FORMAT, LOGIC_FLAGS, run_id, 0, 0)
        sink.write(fmt.encode_segment(header))

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
