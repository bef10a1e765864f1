"""Journal layout: each field at its offset, known bytes for ever."""

import hashlib
import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.journal import format as fmt

RUN_ID = bytes(range(16))


def test_each_field_of_a_segment_header_lies_at_its_offset() -> None:
    data = fmt.encode_segment(fmt.SegmentHeader(1, 2, RUN_ID, 3, 4))
    assert len(data) == fmt.SEGMENT_BYTES == 64
    assert data[:8] == fmt.MAGIC
    offsets = fmt.SEGMENT_OFFSETS
    assert offsets.keys() == {"format", "flags", "run_id", "segment", "sequence", "crc"}
    assert struct.unpack_from("<I", data, offsets["format"]) == (1,)
    assert struct.unpack_from("<I", data, offsets["flags"]) == (2,)
    assert data[offsets["run_id"] :][:16] == RUN_ID
    assert struct.unpack_from("<I", data, offsets["segment"]) == (3,)
    assert struct.unpack_from("<I", data, 36) == (64,)
    assert struct.unpack_from("<Q", data, offsets["sequence"]) == (4,)
    assert data[48:60] == bytes(12)
    assert struct.unpack_from("<I", data, offsets["crc"]) == (zlib.crc32(data[:60]),)


def test_each_field_of_a_frame_lies_at_its_offset() -> None:
    previous = bytes(range(32, 64))
    data, following = fmt.encode_frame(fmt.HISTORY, b"hello", previous)
    offsets = fmt.FRAME_OFFSETS
    assert offsets.keys() == {"length", "head_crc", "body_crc", "kind", "previous"}
    assert struct.unpack_from("<I", data, offsets["length"]) == (5,)
    assert struct.unpack_from("<I", data, offsets["body_crc"]) == (zlib.crc32(b"hello"),)
    assert struct.unpack_from("<I", data, offsets["kind"]) == (fmt.HISTORY,)
    assert data[offsets["previous"] :][:32] == previous
    unsigned = bytearray(data[:48])
    unsigned[offsets["head_crc"] : offsets["head_crc"] + 4] = bytes(4)
    assert struct.unpack_from("<I", data, offsets["head_crc"]) == (zlib.crc32(unsigned),)
    assert data[fmt.FRAME_BYTES :] == b"hello\0\0\0"
    assert following == hashlib.sha256(data[:48] + b"hello").digest()


@given(st.binary(max_size=40))
def test_frames_are_padded_to_eight_bytes(body: bytes) -> None:
    data, _ = fmt.encode_frame(fmt.HISTORY, body, bytes(32))
    assert len(data) % 8 == 0
    assert len(data) - fmt.FRAME_BYTES - len(body) in range(8)


def test_the_bytes_of_a_journal_are_the_known_ones() -> None:
    header = fmt.encode_segment(fmt.SegmentHeader(1, 0, RUN_ID, 0, 0))
    frame, _ = fmt.encode_frame(fmt.IDENTITY, b"{}", fmt.first_link(RUN_ID))
    # Old journals are read for ever: a changed layout is a new format number.
    assert (
        hashlib.sha256(header + frame).hexdigest()
        == "f543325adbc2cfae4bacce285b52d1794f331ccbb204cc9a95c4bde7b9530415"
    )
