"""Journal reader: every byte is checked before it is believed.

Pure: segments in, frames out. A torn tail (engine/journal/recovery.py says what that is) is left
out and counted; damage is refused with its place. Nothing is ever repaired here and no file is
written.
"""

import re
import zlib
from collections.abc import Iterable, Iterator

from lockstep.engine.errors import JournalCorrupt, JournalVersion
from lockstep.engine.journal import format as fmt
from lockstep.engine.journal.parts import MARK_FRAMES, End, Frame, Mark, Segment, Span
from lockstep.engine.journal.recovery import Found, Rest, Verdict, Where, judge
from lockstep.engine.version import JOURNAL_FORMAT, LOGIC_FLAGS

SECTOR_BYTES = 512  # What a disk writes whole or not at all.
# A frame may end in zeros of its own; so few of them at a sector's start say nothing.
UNWRITTEN_BYTES_MIN = 16
_KIND_FIELD = re.compile(rb"[\x01-\x04]\0\0\0")  # Of every frame header, at byte 12.


class Scan:
    """Frames of segments, one after another; for each run of `frames` a new one.

    Attributes:
        header: Of the first segment; None before it was read.
        end: Where the whole part ends, so far.
        marks: One for every `MARK_FRAMES` frames so far, from the first frame on.
        entries: How many frames of history there were.
    """

    def __init__(self, segments: Iterable[Segment], span: Span | None = None) -> None:
        """Frames of a journal.

        Args:
            segments: In order, from the first of the journal or of the span on; one at a time is
                held.
            span: Read this part only, and all of it.
        """
        self._segments = segments
        self._span = span
        self.header: fmt.SegmentHeader | None = None
        self.end = End(0, 0, 0, b"")
        self.marks: list[Mark] = []
        self.entries = self._count = self._sequence = 0
        if span is not None:
            begin = span.begin
            self.header = span.header
            self.end = End(begin.segment, 0, begin.sequence, begin.link)
            self.entries, self._count = begin.entries, begin.segment

    def frames(self) -> Iterator[Frame]:
        """Every whole frame.

        Raises:
            JournalCorrupt: damage, as the table says; or no segment at all.
            JournalVersion: another format, or rules that this version does not know.
        """
        for segment in self._segments:
            yield from self._segment(segment)
            if self.end.why:
                return
            del segment  # Before the next one is read: they are large.
        if self.header is None:
            raise JournalCorrupt("no journal segment")
        if self._span is not None:
            self._check_end(self._span.until)

    def _segment(self, segment: Segment) -> Iterator[Frame]:
        if segment.number != self._count:
            found = f"segment {segment.number}, expected {self._count}"
            raise self._corrupt(segment, 0, Found.SEGMENT_MISSING, found)
        torn = self._begin(segment)
        if torn:
            before = self.end  # A segment of which nothing counts is as if it were not there.
            self.end = before._replace(torn_bytes=len(segment.data), drop=True, why=torn)
            return
        self._count += 1
        self._sequence = self.end.frames
        data, offset, stop = segment.data, fmt.SEGMENT_BYTES, len(segment.data)
        if self._span is not None:
            begin, until = self._span.begin, self._span.until
            if segment.number == begin.segment:
                offset = begin.offset
                self.end = self.end._replace(frames=begin.frames)
            if segment.number == until.segment:
                stop = until.offset
        self.end = self.end._replace(segment=segment.number, offset=offset)
        while offset < stop:
            fault = self._fault(data, offset)
            if fault is not None:
                why = self._torn(segment, offset, *fault)
                self.end = self.end._replace(torn_bytes=len(data) - offset, why=why)
                return
            head = data[offset : offset + fmt.FRAME_BYTES]
            length, kind = _fields(head)
            start = offset + fmt.FRAME_BYTES
            body = data[start : start + length]
            frame = Frame(self.end.frames, offset, kind, body, segment.number)
            if frame.number % MARK_FRAMES == 0:
                self.marks.append(self.here)
            offset = start + length + (-length % 8)
            self.entries += kind == fmt.HISTORY
            self.end = End(segment.number, offset, frame.number + 1, fmt.link(head, body))
            yield frame

    @property
    def here(self) -> Mark:
        """Behind the last frame so far."""
        end = self.end
        return Mark(end.segment, self._sequence, end.offset, end.frames, self.entries, end.link)

    def _check_end(self, until: Mark) -> None:
        """The span was read: whether it ends where it must.

        Raises:
            JournalCorrupt: it does not.
        """
        found = (self.end.segment, self.end.offset, self.end.frames, self.end.link)
        if found != (until.segment, until.offset, until.frames, until.link):
            raise JournalCorrupt(
                f"the journal was read up to byte {found[1]} of segment {found[0]}, frame "
                f"{found[2]}, link {found[3].hex()[:16]}; written was byte {until.offset} of "
                f"segment {until.segment}, frame {until.frames}, link {until.link.hex()[:16]}"
            )

    def _begin(self, segment: Segment) -> str:
        """Check a segment's header; why nothing of the segment counts, or empty.

        Raises:
            As `frames`.
        """
        head = segment.data[: fmt.SEGMENT_BYTES]
        if len(head) < fmt.SEGMENT_BYTES:
            found = f"{len(head)} bytes, a header has {fmt.SEGMENT_BYTES}"
            return self._torn(segment, 0, Found.HEADER_SHORT, found)
        if head[:8] != fmt.MAGIC:
            found = f"no journal segment: its first bytes are {head[:8].hex()}"
            return self._torn(segment, 0, Found.HEADER_BAD, found)
        crc = int.from_bytes(head[60:], "little")
        if zlib.crc32(head[:60]) != crc:
            found = f"segment header has checksum {crc:08x}, expected {zlib.crc32(head[:60]):08x}"
            return self._torn(segment, 0, Found.HEADER_BAD, found)
        _, version, flags, run_id, number, size, sequence, rest = fmt.SEGMENT.unpack(head[:60])
        if version != JOURNAL_FORMAT:
            raise JournalVersion(
                f"{segment.where}: format {version}, this Lockstep reads {JOURNAL_FORMAT}"
            )
        if flags & ~LOGIC_FLAGS:
            raise JournalVersion(
                f"{segment.where}: logic flags {flags:#x}, this Lockstep knows {LOGIC_FLAGS:#x}"
            )
        header = fmt.SegmentHeader(version, flags, run_id, number, sequence)
        if size != fmt.SEGMENT_BYTES or any(rest):
            found = (
                f"a header of {size} bytes, reserved bytes {rest.hex()}; expected "
                f"{fmt.SEGMENT_BYTES} bytes, reserved bytes 0"
            )
            return self._torn(segment, 0, Found.HEADER_BAD, found)
        return self._follow(segment, header)

    def _follow(self, segment: Segment, header: fmt.SegmentHeader) -> str:
        """Whether a segment with this header comes here."""
        if self.header is None:
            self.header = header._replace(segment=0, sequence=0)
            self.end = End(0, 0, 0, fmt.first_link(header.run_id))
        expected = self.header._replace(segment=self._count, sequence=self.end.frames)
        if header == expected:
            return ""
        what = [
            f"{name} {_text(found)}, expected {_text(wanted)}"
            for name, found, wanted in zip(header._fields, header, expected, strict=True)
            if found != wanted
        ]
        return self._torn(segment, 0, Found.HEADER_FOREIGN, "; ".join(what))

    def _fault(self, data: bytes, offset: int) -> tuple[Found, str] | None:
        """What does not fit in the frame at ``offset``."""
        left = len(data) - offset
        if left < fmt.FRAME_BYTES:
            return Found.HEAD_SHORT, f"{left} bytes, a frame header has {fmt.FRAME_BYTES}"
        length, head_crc, body_crc, kind, linked = fmt.FRAME.unpack_from(data, offset)
        expected = zlib.crc32(fmt.FRAME.pack(length, 0, body_crc, kind, linked))
        if head_crc != expected:
            return Found.HEAD_BAD, f"header checksum {head_crc:08x}, expected {expected:08x}"
        # Before anything is allocated or summed up: a length is believed last.
        if length > fmt.BODY_BYTES_MAX:
            return Found.LENGTH, f"a body of {length} bytes, at most {fmt.BODY_BYTES_MAX} are legal"
        if kind not in fmt.KINDS:
            return Found.KIND, f"kind {kind}, known are {fmt.KINDS[0]} to {fmt.KINDS[-1]}"
        start, padding = offset + fmt.FRAME_BYTES, -length % 8
        if fmt.FRAME_BYTES + length + padding > left:
            return Found.BODY_SHORT, f"{left} of {fmt.FRAME_BYTES + length + padding} bytes"
        found = zlib.crc32(memoryview(data)[start : start + length])
        if found != body_crc:
            return Found.BODY_BAD, f"checksum {body_crc:08x}, expected {found:08x}"
        if any(data[start + length : start + length + padding]):
            return Found.PADDING, "padding is not zero"
        if linked != self.end.link:
            return Found.CHAIN, (
                f"it follows {linked.hex()[:16]}, expected {self.end.link.hex()[:16]}: "
                "a record is missing, doubled, swapped or from another run"
            )
        return None

    def _torn(self, segment: Segment, offset: int, found: Found, what: str) -> str:
        """Why the rest of the segment does not count.

        Raises:
            JournalCorrupt: the table says that it is damage.
        """
        where = Where.EARLIER if not segment.last else Where.LAST if segment.number else Where.ONLY
        rest, follow = _rest(segment.data, offset, found)
        if self._span is None and judge(found, where, rest).verdict is Verdict.CUT:
            return f"{found.value}: {what}"
        raise self._corrupt(segment, offset, found, what, follow)

    def _corrupt(
        self, segment: Segment, offset: int, found: Found, what: str, follow: int = 0
    ) -> JournalCorrupt:
        place = f": frame {self.end.frames} at byte {offset}" if offset else ""
        more = f", and {follow} valid frame{'s' * (follow != 1)} follow{'s' * (follow == 1)} it"
        return JournalCorrupt(
            f"{segment.where}{place}: {what}{more if follow else ''}. "
            "This is damage, not a torn write; nothing was cut"
        )


class JournalReader:
    """A journal in memory.

    Attributes:
        header: Of the first segment.
        frames: Whole frames, checked.
        end: Where they end.
        marks, here: As in `Scan`.
    """

    def __init__(self, data: bytes, where: str) -> None:
        """Check a journal of one segment. Errors as `Scan.frames`."""
        self._read(Scan([Segment(where, 0, data, True)]))

    @classmethod
    def of(cls, scan: Scan) -> "JournalReader":
        """Check a journal that nobody has begun to read. Errors as `Scan.frames`."""
        made = cls.__new__(cls)
        made._read(scan)
        return made

    def _read(self, scan: Scan) -> None:
        self.frames = list(scan.frames())
        assert scan.header is not None
        self.header, self.end = scan.header, scan.end
        self.marks, self.here = scan.marks, scan.here

    @property
    def torn_bytes(self) -> int:
        """Bytes of an incomplete last frame that do not count."""
        return self.end.torn_bytes

    def bodies(self, kind: int) -> Iterator[bytes]:
        """Bodies of one kind, in order."""
        return (frame.body for frame in self.frames if frame.kind == kind)


def _fields(head: bytes) -> tuple[int, int]:
    """(length, kind) of a frame header that was checked."""
    length, _, _, kind, _ = fmt.FRAME.unpack(head)
    return length, kind


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _rest(data: bytes, offset: int, found: Found) -> tuple[Rest, int]:
    """What is behind a fault at ``offset``, and how many whole frames."""
    written = len(data.rstrip(b"\0"))
    if written <= offset:
        return Rest.ZEROS, 0
    size = min(fmt.FRAME_BYTES, len(data) - offset)
    trusted = found in (Found.BODY_BAD, Found.PADDING, Found.CHAIN)  # The length is.
    if trusted:
        length, _ = _fields(data[offset : offset + size])
        size += length + (-length % 8)
    last = min(offset + size - 1, len(data) - UNWRITTEN_BYTES_MIN)
    sector = last // SECTOR_BYTES * SECTOR_BYTES  # The last that begins in the frame.
    if offset < sector and written <= sector:
        return Rest.ZERO_TAIL, 0
    # What a frame's header vouches for is its body, whatever that looks like: an agent may well
    # send bytes that look like frames.
    if found is Found.BODY_SHORT:
        return Rest.OTHER, 0
    follow = _whole_frames(data, offset + (size if trusted else 8))
    return (Rest.FRAMES if follow else Rest.OTHER), follow


def _whole_frames(data: bytes, offset: int) -> int:
    """How many frames with right checksums lie behind ``offset``."""
    count, next_at = 0, offset
    for match in _KIND_FIELD.finditer(data, offset):
        at = match.start() - fmt.FRAME_OFFSETS["kind"]
        if at < next_at or at % 8 or len(data) - at < fmt.FRAME_BYTES:
            continue
        length, head_crc, body_crc, kind, linked = fmt.FRAME.unpack_from(data, at)
        start = at + fmt.FRAME_BYTES
        if length > fmt.BODY_BYTES_MAX or start + length > len(data):
            continue
        if head_crc != zlib.crc32(fmt.FRAME.pack(length, 0, body_crc, kind, linked)):
            continue
        if body_crc == zlib.crc32(memoryview(data)[start : start + length]):
            count, next_at = count + 1, start + length + (-length % 8)
    return count
