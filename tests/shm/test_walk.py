"""Walk: the fast way over records and the plain one arrive at the same place."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from lockstep.shm.walk import KIND_PADDING, Marks, walk

MARK = 64


def record(size: int, kind: int, flags: int = 0) -> bytes:
    """A record of ``size`` bytes with its padding."""
    return struct.pack("<IHH24x", size, kind, flags) + bytes(size - 32) + bytes(-size % 8)


def plainly(data: bytes, start: int, stop: int, size_max: int) -> tuple[int, int, Marks]:
    """What a walk comes to, one record after the other."""
    offset, count, marks = start, 0, []
    while offset + 32 <= stop:
        size, kind = struct.unpack_from("<IH", data, offset)
        after = offset + (size + 7) // 8 * 8
        if not 32 <= size <= size_max or after > stop or kind == KIND_PADDING:
            break
        if kind >= MARK:
            marks.append((offset, count))
        offset, count = after, count + 1
    return offset, count, marks


# Runs of equal records, long enough for vectors, of a few kinds and sizes mixed with one another.
RUNS = st.lists(
    st.tuples(
        st.sampled_from([32, 33, 40, 96]),
        st.sampled_from([33, 33, 34, MARK, 69, KIND_PADDING]),
        st.sampled_from([1, 1, 2, 3, 15, 63, 64, 65, 200, 400]),
    ),
    max_size=8,
)


@given(RUNS, st.data())
def test_a_walk_passes_over_what_the_plain_loop_passes_over(
    runs: list[tuple[int, int, int]], chosen: st.DataObject
) -> None:
    data = bytearray(
        b"".join(record(size, kind, n) for size, kind, count in runs for n in range(count))
    )
    if data and chosen.draw(st.booleans()):
        at = chosen.draw(st.integers(0, len(data) // 8 - 1)) * 8
        struct.pack_into(
            "<I", data, at, chosen.draw(st.sampled_from([0, 31, 40, 10**6, 2**32 - 1]))
        )
    stop = chosen.draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    size_max = chosen.draw(st.sampled_from([32, 40, 512]))
    marks: Marks = []
    offset, count = walk(bytes(data), 0, stop, size_max, marks, MARK)
    assert (offset, count, marks) == plainly(bytes(data), 0, stop, size_max)


def test_a_walk_goes_on_where_another_stopped() -> None:
    data = record(40, 33) * 300 + record(32, MARK) + record(40, 33) * 5
    marks: Marks = []
    offset, count = walk(data, 0, 40 * 100 + 8, 512, marks, MARK)
    assert (offset, count, marks) == (40 * 100, 100, [])
    assert walk(data, offset, len(data), 512, marks, MARK, count) == (len(data), 306)
    assert marks == [(12_000, 300)]
