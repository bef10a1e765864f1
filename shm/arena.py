"""Arena: page-aligned slices of shared memory, each for one other process.

Where children are forked it is one unnamed segment: the supervisor creates it, seals it and lends a
slice for the fork of its owner. Where each child is a fresh process every slice is a segment of its
own, which that child attaches to by name. An agent process maps its own slice and nothing else
either way: touching another is a segmentation fault, not a leak.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lockstep.shm import segment
from lockstep.shm.segment import UNNAMED, Loan, Segment

PAGE_BYTES = mmap.PAGESIZE


def page_aligned(size_bytes: int) -> int:
    """``size_bytes`` rounded up to whole pages."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


class Words(Protocol):
    """One u64 of every slice, as they are now."""

    def copy(self) -> npt.NDArray[np.uint64]:
        """A private copy, in the order of the slices."""


class Scattered:
    """`Words` that lie in segments of their own."""

    def __init__(self, words: Sequence[memoryview]) -> None:
        self._words = words

    def copy(self) -> npt.NDArray[np.uint64]:
        """As `Words`."""
        return np.fromiter((word[0] for word in self._words), np.uint64, len(self._words))


class Arena:
    """Slices; see `create`, `create_named`. The views given out live until `close`."""

    def __init__(self, parts: Sequence[tuple[Segment, int, int]]) -> None:
        """Segment, offset of a whole page and size of each slice."""
        self._parts = list(parts)
        self._segments = list(dict.fromkeys(part[0] for part in parts))
        self._slices = [whole.memory[start : start + size] for whole, start, size in parts]

    @classmethod
    def create(cls, slice_bytes: Sequence[int]) -> "Arena":
        """A zeroed arena with one slice of each size in one segment, not yet sealed.

        Raises:
            ValueError: no slice, or one without bytes.
            SegmentFull: no room; nothing is left behind.
        """
        _check(slice_bytes)
        lengths = [page_aligned(size) for size in slice_bytes]
        whole = segment.create_unlinked(sum(lengths))
        starts = accumulate(lengths[:-1], initial=0)
        return cls([(whole, at, size) for at, size in zip(starts, slice_bytes, strict=True)])

    @classmethod
    def create_named(cls, slice_bytes: Sequence[int], make: Callable[[int], Segment]) -> "Arena":
        """A zeroed arena of segments that ``make`` gives, one for each slice.

        Raises:
            ValueError, SegmentFull: as `create`.
        """
        _check(slice_bytes)
        made: list[tuple[Segment, int, int]] = []
        try:
            for size in slice_bytes:
                made.append((make(page_aligned(size)), 0, size))
        except BaseException:
            for whole, _, _ in made:
                whole.unlink()
                whole.close()
            raise
        return cls(made)

    def __len__(self) -> int:
        return len(self._slices)

    def slice(self, index: int) -> memoryview:
        """The bytes of one slice, always the same view; a sub-view of it blocks `close`."""
        return self._slices[index]

    def name(self, index: int) -> str:
        """Name by which the owner of a slice attaches to it; empty: it inherits it."""
        name = self._parts[index][0].name
        return "" if name == UNNAMED else name

    def words(self, first: int, offset: int) -> Words:
        """The u64 at byte ``offset`` of every slice from ``first`` on, as one strided view.

        So that a thousand words, each on a page of its own, are looked at by one vector operation.
        Of slices that are segments of their own they are looked at one by one.

        Raises:
            ValueError: the slices are not of one length, or the word is outside of them.
        """
        parts = self._parts[first:]
        lengths = {page_aligned(size) for _, _, size in parts}
        if len(lengths) > 1 or offset % 8 or not all(offset + 8 <= n for n in lengths):
            raise ValueError(f"word at byte {offset} of slices of {sorted(lengths)} bytes")
        if not parts:
            return np.empty(0, np.uint64)
        if len(self._segments) > 1:
            return Scattered([each.memory[offset : offset + 8].cast("Q") for each, _, _ in parts])
        start, stop = parts[0][1] + offset, parts[-1][1] + offset + 8
        (length,) = lengths
        # Not by numpy.ndarray, which lets the memory be unmapped under it.
        return np.frombuffer(self._segments[0].memory[start:stop], np.uint64)[:: length // 8]

    def seal(self) -> None:
        """From now on a forked child gets no slice but those lent to it."""
        self._inherit(False, range(len(self)))

    @contextmanager
    def lend(self, *indices: int) -> Iterator[None]:
        """Let a child that is forked inside the ``with`` inherit these slices.

        Leaving it seals them again, in the parent and, should the child get there, in the child:
        a grandchild inherits nothing.
        """
        self._inherit(True, indices)
        try:
            yield
        finally:
            self._inherit(False, indices)

    def loan(self, index: int) -> Loan:
        """What `lend` does with a slice, for who forks many and has no time between two."""
        whole, start, size = self._parts[index]
        return whole.loan(start, page_aligned(size))

    def descriptors(self) -> tuple[int, ...]:
        """Placeholders that a child may close, if it leaves by ``os._exit`` (`Segment`)."""
        return tuple(number for each in self._segments for number in each.descriptors())

    def close(self) -> None:
        """Unmap, and remove names. Idempotent; may be tried again after a BufferError.

        Raises:
            BufferError: a ring or an array still holds a view (`slice`, `words`): close that first.
        """
        for view in self._slices:
            view.release()
        for each in self._segments:
            each.unlink()
            each.close()

    def _inherit(self, wanted: bool, indices: Sequence[int]) -> None:
        for index in indices:
            whole, start, size = self._parts[index]
            whole.inherit(wanted, start, page_aligned(size))


def _check(slice_bytes: Sequence[int]) -> None:
    if not slice_bytes or min(slice_bytes) < 1:
        raise ValueError(f"arena of {list(slice_bytes)} bytes: each slice needs 1 or more")
