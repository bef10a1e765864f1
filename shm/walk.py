"""Walk: passing over records one behind the other, the loop in which rings spend their time.

A turn of a thousand equal messages is passed over by a few vector compares; anything else record
by record. Nothing here refuses: the walk stops before the first record that is not in order, and
whoever walks says why.
"""

import struct
from typing import TypeAlias

import numpy as np

# Data of a ring: records one behind the other, each at a multiple of 8, none across the end. Of a
# record this layer reads the first two fields only (engine/record.py draws the rest):
#
#   0            4          6          size     multiple of 8
#   +------------+----------+-- .... --+----------+
#   | size  u32  | kind u16 |   rest   | zeros    |
#   +------------+----------+-- .... --+----------+
#
# What a record does not fill before the end is one padding record, kind 0xFFFF, whose size reaches
# the end exactly. All is 8-aligned, so the gap is 8 at least and those six bytes always fit.
PREFIX = struct.Struct("<IH")
ALIGN = 8
KIND_PADDING = 0xFFFF
RECORD_BYTES_MIN = 32  # A record's own header.

_PREFIX_MASK = np.uint64((1 << 8 * PREFIX.size) - 1)
# A vector compare costs as much as passing over 8 records: it is tried after two alike, where
# room is left for many, and after a vain try not again before as many records as it looked at.
RUN_MIN = 16
RUN_FIRST = 64

Marks: TypeAlias = list[tuple[int, int]]  # Offset of a record, and how many came before it.


def aligned(size: int) -> int:
    """``size`` rounded up to a multiple of 8."""
    return (size + ALIGN - 1) & ~(ALIGN - 1)


def walk(
    data: bytes,
    start: int,
    stop: int,
    size_max: int,
    marks: Marks | None = None,
    mark_from: int = KIND_PADDING,
    count: int = 0,
) -> tuple[int, int]:
    """Pass over whole records from ``start`` on.

    Args:
        data: A private copy: nobody else may write to it.
        start: Offset of the first.
        stop: No record passed over reaches beyond this offset.
        size_max: Of one record; a multiple of 8.
        marks: Where records of a kind from ``mark_from`` on are noted.
        mark_from: Lowest kind to note; padding never is, it ends the walk.
        count: Records passed over before ``start``.

    Returns:
        The offset of the first record that was not passed over (it is padding, has a size out of
        bounds, reaches beyond ``stop``, or is not there), and ``count`` with those that were.
    """
    unpack, offset, previous, try_from = PREFIX.unpack_from, start, 0, start
    last = stop - RECORD_BYTES_MIN
    while offset <= last:
        size, kind = unpack(data, offset)
        step = (size + 7) & ~7
        if not RECORD_BYTES_MIN <= size <= size_max or offset + step > stop:
            break
        if kind >= mark_from:
            if kind == KIND_PADDING:
                break
            if marks is not None:
                marks.append((offset, count))
        elif size == previous and offset >= try_from and stop - offset >= RUN_MIN * step:
            alike = run(data, offset, stop, step)
            try_from = offset + RUN_FIRST * step
            offset, count = offset + alike * step, count + alike
            continue
        previous = size
        offset, count = offset + step, count + 1
    return offset, count


def run(data: bytes | memoryview, start: int, stop: int, step: int) -> int:
    """How many records from ``start`` on have the size and the kind of the first."""
    room, length, alike = (stop - start) // step, RUN_FIRST, 0
    while alike < room:
        count = min(length, room - alike)
        prefixes = np.ndarray(count, np.uint64, data, start + alike * step, (step,)) & _PREFIX_MASK
        if alike == 0:
            first = prefixes[0]
        different = prefixes != first
        if different.any():
            return alike + int(different.argmax())
        alike, length = alike + count, 4 * length
    return alike
