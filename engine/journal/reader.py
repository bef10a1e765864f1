"""Journal reader: every byte is checked before it is believed.

A torn tail (an incomplete last frame) is cut in memory and counted; damage before it is refused
with its place. Nothing is ever repaired here and no file is written.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.engine.errors import JournalCorrupt, JournalVersion
from lockstep.engine.journal import format as fmt
from lockstep.engine.version import JOURNAL_FORMAT, LOGIC_FLAGS


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its number, place, kind and body."""

    number: int
    offset: int
    kind: int
    body: bytes


class JournalReader:
    """One segment in memory.

    Attributes:
        header: Of the segment.
        frames: Whole frames, checked.
        torn_bytes: Bytes of an incomplete last frame that do not count.
    """

    def __init__(self, data: bytes, where: str) -> None:
        """Check everything.

        Raises:
            JournalCorrupt: wrong magic, a checksum or a link that does not fit, with whole
                frames or none behind it that a torn write cannot explain; a header that is
                not that of a run's only segment.
            JournalVersion: another format, or rules that this version does not know.
        """
        self._where = where
        self.header = self._header(data)
        self.frames: list[Frame] = []
        self.torn_bytes = 0
        previous = fmt.first_link(self.header.run_id)
        offset = fmt.SEGMENT_BYTES
        while offset < len(data):
            size = self._whole(data, offset)
            if size is None:
                self.torn_bytes = len(data) - offset
                break
            previous = self._take(data, offset, size, previous)
            offset += fmt.FRAME_BYTES + size + (-size % 8)

    def bodies(self, kind: int) -> Iterator[bytes]:
        """Bodies of one kind, in order."""
        return (frame.body for frame in self.frames if frame.kind == kind)

    def _header(self, data: bytes) -> fmt.SegmentHeader:
        head = data[: fmt.SEGMENT_BYTES]
        if len(head) < fmt.SEGMENT_BYTES or head[:8] != fmt.MAGIC:
            raise JournalCorrupt(
                f"{self._where}: no journal segment (its first bytes are {head[:8].hex()})"
            )
        crc = int.from_bytes(head[60:], "little")
        if zlib.crc32(head[:60]) != crc:
            raise JournalCorrupt(f"{self._where}: segment header has checksum {crc:08x}, "
                                 f"expected {zlib.crc32(head[:60]):08x}")  # fmt: skip
        _, version, flags, run_id, segment, size, sequence, rest = fmt.SEGMENT.unpack(head[:60])
        if version != JOURNAL_FORMAT:
            raise JournalVersion(
                f"{self._where}: format {version}, this Lockstep reads {JOURNAL_FORMAT}"
            )
        if flags & ~LOGIC_FLAGS:
            raise JournalVersion(
                f"{self._where}: logic flags {flags:#x}, this Lockstep knows {LOGIC_FLAGS:#x}"
            )
        if (size, segment, sequence) != (fmt.SEGMENT_BYTES, 0, 0) or any(rest):
            # A run has one segment today; nothing could be in front of it.
            raise JournalCorrupt(
                f"{self._where}: segment {segment} with a header of {size} bytes, first frame "
                f"{sequence}, reserved bytes {rest.hex()}; expected segment 0, "
                f"{fmt.SEGMENT_BYTES} bytes, first frame 0, reserved bytes 0"
            )
        return fmt.SegmentHeader(version, flags, run_id, segment, sequence)

    def _whole(self, data: bytes, offset: int) -> int | None:
        """Body size of the frame at ``offset``; None when it is the torn tail."""
        left = len(data) - offset
        if left < fmt.FRAME_BYTES:
            return None
        length, head_crc, body_crc, kind, previous = fmt.FRAME.unpack_from(data, offset)
        expected = zlib.crc32(fmt.FRAME.pack(length, 0, body_crc, kind, previous))
        if head_crc != expected or kind not in fmt.KINDS or length > fmt.BODY_BYTES_MAX:
            raise self._corrupt(offset, f"header checksum {head_crc:08x}, expected {expected:08x}")
        return length if fmt.FRAME_BYTES + length + (-length % 8) <= left else None

    def _take(self, data: bytes, offset: int, size: int, previous: bytes) -> bytes:
        head = data[offset : offset + fmt.FRAME_BYTES]
        start = offset + fmt.FRAME_BYTES
        body = data[start : start + size]
        _, _, body_crc, kind, linked = fmt.FRAME.unpack(head)
        if zlib.crc32(body) != body_crc:
            raise self._corrupt(offset, f"checksum {body_crc:08x}, expected {zlib.crc32(body):08x}")
        if any(data[start + size : start + size + (-size % 8)]):
            raise self._corrupt(offset, "padding is not zero")
        if linked != previous:
            raise self._corrupt(
                offset,
                f"it follows {linked.hex()[:16]}, expected {previous.hex()[:16]}: "
                "a record is missing, doubled, swapped or from another run",
            )
        self.frames.append(Frame(len(self.frames), offset, kind, body))
        return fmt.link(head, body)

    def _corrupt(self, offset: int, what: str) -> JournalCorrupt:
        number = len(self.frames)
        return JournalCorrupt(
            f"{self._where}: frame {number} at byte {offset}: {what}. "
            "This is damage, not a torn write; nothing was cut"
        )
