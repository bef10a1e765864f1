"""Journal layout: append-only segments of framed bodies, each chained to the one before.

The integrity chain covers bodies as written; the digest (engine/digest.py) covers identity and
history. A body is one entry (the records of one tag or step), or the identity, the environment, or
what had to be kept besides.
"""

import hashlib
import struct
import zlib
from typing import NamedTuple

MAGIC = b"LKSTPJ\r\n"

# Segment header, 64 bytes, little-endian.
#
#   0       8         12      16             32         36            40         48     60     64
#   +-------+---------+-------+--------------+----------+-------------+----------+------+------+
#   | magic | format  | flags | run id       | segment  | header size | sequence | 0..  | crc  |
#   | 8 B   | u32     | u32   | 16 B         | u32      | u32 = 64    | u64      | 12 B | u32  |
#   +-------+---------+-------+--------------+----------+-------------+----------+------+------+
#
# flags: logic flags (engine/version.py). sequence: number of the segment's first frame.
# crc: CRC-32 of bytes 0..59.
SEGMENT = struct.Struct("<8sII16sIIQ12s")
SEGMENT_BYTES = 64
SEGMENT_OFFSETS = {"format": 8, "flags": 12, "run_id": 16, "segment": 32, "sequence": 40, "crc": 60}

# Frame header, 48 bytes, then the body, zero-padded to 8.
#
#   0        4          8          12     16                48
#   +--------+----------+----------+------+------------------+-- ... --+-----+
#   | length | head crc | body crc | kind | previous hash    | body    | 0.. |
#   | u32    | u32      | u32      | u32  | 32 B             |         |     |
#   +--------+----------+----------+------+------------------+-- ... --+-----+
#
# length: bytes of the body. head crc: CRC-32 of the header with this field zero.
# previous hash: `link` of the frame before; of the first frame: SHA-256 of the run id.
FRAME = struct.Struct("<IIII32s")
FRAME_BYTES = 48
FRAME_OFFSETS = {"length": 0, "head_crc": 4, "body_crc": 8, "kind": 12, "previous": 16}
BODY_BYTES_MAX = 2**30

IDENTITY = 1  # Body of the first frame: decides every bit of the run.
ENVIRONMENT = 2  # What it ran on: compared by `verify`, never hashed into the digest.
HISTORY = 3  # One entry.
# Records that are no history, but which a second execution needs: outside events with their tags
# (OUTSIDE), and what arrival order chose (ORDERED). They lie before whatever follows from them.
KEPT = 4
KINDS = (IDENTITY, ENVIRONMENT, HISTORY, KEPT)


class SegmentHeader(NamedTuple):
    """The fields of a segment header."""

    format: int
    flags: int
    run_id: bytes
    segment: int
    sequence: int


def encode_segment(header: SegmentHeader) -> bytes:
    """The 64 bytes at the start of a segment."""
    body = SEGMENT.pack(
        MAGIC,
        header.format,
        header.flags,
        header.run_id,
        header.segment,
        SEGMENT_BYTES,
        header.sequence,
        bytes(12),
    )
    return body + zlib.crc32(body).to_bytes(4, "little")


def first_link(run_id: bytes) -> bytes:
    """What the first frame's ``previous`` field holds."""
    return hashlib.sha256(run_id).digest()


def encode_frame(kind: int, body: bytes, previous: bytes) -> tuple[bytes, bytes]:
    """A frame with padding, and its link for the next one."""
    body_crc = zlib.crc32(body)
    head_crc = zlib.crc32(FRAME.pack(len(body), 0, body_crc, kind, previous))
    head = FRAME.pack(len(body), head_crc, body_crc, kind, previous)
    return head + body + bytes(-len(body) % 8), link(head, body)


def link(head: bytes, body: bytes) -> bytes:
    """SHA-256 of a frame's header and body: the ``previous`` field of the next frame."""
    return hashlib.sha256(head + body).digest()
