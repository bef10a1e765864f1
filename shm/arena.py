"""Arena: one unnamed segment, cut into page-aligned slices that children inherit one by one.

The supervisor creates it, seals it and lends a slice for the fork of its owner. An agent process
then maps its own slice and nothing else: touching another is a segmentation fault, not a leak.
"""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from lockstep.shm import segment
from lockstep.shm.segment import Segment

PAGE_BYTES = mmap.PAGESIZE


def page_aligned(size_bytes: int) -> int:
    """``size_bytes`` rounded up to whole pages."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


class Arena:
    """Slices of one segment; see `create`. The views given out live until `close`."""

    def __init__(self, whole: Segment, slice_bytes: Sequence[int]) -> None:
        lengths = [page_aligned(size) for size in slice_bytes]
        starts = list(accumulate(lengths, initial=0))[:-1]
        self._segment = whole
        self._ranges = list(zip(starts, lengths, strict=True))
        self._slices = [
            whole.memory[start : start + size]
            for start, size in zip(starts, slice_bytes, strict=True)
        ]

    @classmethod
    def create(cls, slice_bytes: Sequence[int]) -> "Arena":
        """A zeroed arena with one slice of each size, not yet sealed.

        Raises:
            ValueError: no slice, or one without bytes.
            SegmentFull: no room in /dev/shm; nothing is left behind.
        """
        if not slice_bytes or min(slice_bytes) < 1:
            raise ValueError(f"arena of {list(slice_bytes)} bytes: each slice needs 1 or more")
        return cls(segment.create_unlinked(sum(map(page_aligned, slice_bytes))), slice_bytes)

    def __len__(self) -> int:
        return len(self._slices)

    def slice(self, index: int) -> memoryview:
        """The bytes of one slice, always the same view; a sub-view of it blocks `close`."""
        return self._slices[index]

    def words(self, first: int, offset: int) -> npt.NDArray[np.uint64]:
        """The u64 at byte ``offset`` of every slice from ``first`` on, as one strided view.

        So that a thousand words, each on a page of its own, are looked at by one vector operation.

        Raises:
            ValueError: the slices are not of one length, or the word is outside of them.
        """
        ranges = self._ranges[first:]
        lengths = {length for _, length in ranges}
        if len(lengths) > 1 or offset % 8 or not all(offset + 8 <= n for n in lengths):
            raise ValueError(f"word at byte {offset} of slices of {sorted(lengths)} bytes")
        if not ranges:
            return np.empty(0, np.uint64)
        start, stop = ranges[0][0] + offset, ranges[-1][0] + offset + 8
        (length,) = lengths
        # Not by numpy.ndarray, which lets the memory be unmapped under it.
        return np.frombuffer(self._segment.memory[start:stop], np.uint64)[:: length // 8]

    def seal(self) -> None:
        """From now on a forked child gets no slice but those lent to it."""
        self._advise(range(len(self)), mmap.MADV_DONTFORK)

    @contextmanager
    def lend(self, *indices: int) -> Iterator[None]:
        """Let a child that is forked inside the ``with`` inherit these slices.

        Leaving it seals them again, in the parent and, should the child get there, in the child:
        a grandchild inherits nothing.
        """
        self._advise(indices, mmap.MADV_DOFORK)
        try:
            yield
        finally:
            self._advise(indices, mmap.MADV_DONTFORK)

    def descriptors(self) -> tuple[int, ...]:
        """Placeholders that a child may close, if it leaves by ``os._exit`` (`Segment`)."""
        return self._segment.descriptors()

    def close(self) -> None:
        """Unmap. Idempotent; may be tried again after a BufferError.

        Raises:
            BufferError: a ring or an array still holds a view (`slice`, `words`): close that first.
        """
        for view in self._slices:
            view.release()
        self._segment.close()

    def _advise(self, indices: Sequence[int], advice: int) -> None:
        for index in indices:
            start, length = self._ranges[index]
            self._segment.advise(advice, start, length)
