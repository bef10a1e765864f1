"""Batch: very many records taken at once, as columns.

A turn of a thousand messages is routed by a few numpy operations instead of a thousand decoded
records. What is refused, and in which words, is exactly what `record.decode` refuses: whatever
looks wrong here is given to it, and it says why. Where all records take the same room (messages of
one size) they are rows of a table; else one tight loop finds where each begins.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lockstep.engine.errors import LockstepBug
from lockstep.engine.record import ALIGN, HEADER_BYTES, OFFSETS, Record, decode, decode_at

Heads: TypeAlias = npt.NDArray[Any]  # One-dimensional, of HEAD.
Indices: TypeAlias = npt.NDArray[np.int64]

# The record header (`record` draws it) as a numpy structure.
HEAD = np.dtype(
    [
        ("size", "<u4"),
        ("kind", "<u2"),
        ("flags", "<u2"),
        ("id", "<u8"),
        ("item", "<u8"),
        ("peer", "<u4"),
        ("reserved", "<u4"),
    ]
)
_HEAD_WORDS = np.arange(HEADER_BYTES // ALIGN)
# By the number of padding bytes: the bits of a record's last word that have to be zero.
_PADDING = np.array([(1 << 64) - (1 << (64 - 8 * n)) for n in range(ALIGN)], np.uint64)


class Batch:
    """The records of some bytes.

    Attributes:
        data: The bytes themselves.
        starts: int64 of shape (n,), offset of each record.
        steps: int64 of shape (n,), bytes of each with its padding: the next one begins there.
        heads: Headers, of shape (n,) and dtype `HEAD`. Read-only, perhaps a view of ``data``.
        stride: Bytes of every record if all take the same, else 0.

    Raises:
        ProtocolError: as `record.decode`, in the same words.
    """

    __slots__ = ("data", "heads", "starts", "steps", "stride")

    data: bytes
    starts: Indices
    steps: Indices
    heads: Heads
    stride: int

    def __init__(self, data: bytes) -> None:
        self.data = data
        if not (self._lay_evenly(data) or self._lay_out(data)) or not self._is_clean():
            for _ in decode(data):
                pass
            raise LockstepBug("a batch of records was refused and its decoder finds nothing wrong")

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Record]:
        return decode(self.data)

    def kinds(self) -> npt.NDArray[np.uint16]:
        """The kind of each record."""
        kinds: npt.NDArray[np.uint16] = self.heads["kind"]
        return kinds

    def record(self, index: int) -> Record:
        """One record, decoded."""
        return decode_at(self.data, int(self.starts[index]))[0]

    def bytes_of(self, index: int) -> bytes:
        """The bytes of one record, with its padding."""
        start = int(self.starts[index])
        return self.data[start : start + int(self.steps[index])]

    def select(self, mask: npt.NDArray[np.bool_]) -> "Batch":
        """The records where ``mask`` (bool, one for each) says so, in their order."""
        order = np.flatnonzero(mask)
        return self if len(order) == len(self) else Batch(self.gather(order))

    def gather(self, order: npt.NDArray[np.integer[Any]]) -> bytes:
        """The bytes of records number ``order[0]``, ``order[1]``, ..., one behind the other."""
        if self.stride:
            rows: Heads = np.frombuffer(self.data, f"V{self.stride}")
            return bytes(rows[order].tobytes())
        starts = self.starts[order]
        spans = zip(starts.tolist(), (starts + self.steps[order]).tolist(), strict=True)
        return b"".join([self.data[start:stop] for start, stop in spans])

    def rewrite(
        self,
        *,
        kind: int | npt.NDArray[Any] | None = None,
        flags: int | npt.NDArray[Any] | None = None,
        peer: int | npt.NDArray[Any] | None = None,
        where: npt.NDArray[Any] | slice = slice(None),
    ) -> bytes:
        """A copy of the bytes with header fields overwritten.

        Args:
            kind: For all records, or one for each of those in ``where``.
            flags: In the same way.
            peer: In the same way.
            where: Which records: a mask, numbers of records or a slice.
        """
        copy = bytearray(self.data)
        for name, value in (("kind", kind), ("flags", flags), ("peer", peer)):
            if value is not None:
                field = HEAD[name]
                place = (self.starts[where] + OFFSETS[name]) // field.itemsize
                np.frombuffer(copy, field)[place] = value
        return bytes(copy)

    def _lay_evenly(self, data: bytes) -> bool:
        """Rows of one table, if all records take as much room as the first."""
        first = int.from_bytes(data[:4], "little")
        step = -(-first // ALIGN) * ALIGN
        if first < HEADER_BYTES or len(data) % step:
            return False
        heads: Heads = np.ndarray(len(data) // step, HEAD, data, 0, (step,))
        sizes = heads["size"]
        if not ((sizes > max(step - ALIGN, HEADER_BYTES - 1)) & (sizes <= step)).all():
            return False
        self.stride, self.heads = step, heads
        self.starts = np.arange(0, len(data), step, dtype=np.int64)
        self.steps = np.full(len(heads), step, np.int64)
        return True

    def _lay_out(self, data: bytes) -> bool:
        """Find each record; False if a size makes no sense."""
        if len(data) % ALIGN:
            return False
        found: list[int] = []
        add, at, end = found.append, 0, len(data) // 4
        with memoryview(data).cast("I") as sizes:
            while at < end:
                add(at)
                size = sizes[at]
                if size < HEADER_BYTES:
                    return False
                at += (size + 7 >> 3) << 1
        if at != end:
            return False
        starts = np.array([*found, end], np.int64) * 4
        self.stride, self.starts, self.steps = 0, starts[:-1], np.diff(starts)
        words = np.frombuffer(data, np.uint64)[(self.starts // ALIGN)[:, None] + _HEAD_WORDS]
        self.heads = words.view(HEAD).reshape(len(found))
        return True

    def _is_clean(self) -> bool:
        """Whether what has to be zero is: reserved fields and padding."""
        if self.heads["reserved"].any():
            return False
        padding = self.steps - self.heads["size"]
        if not padding.any():
            return True
        last = np.frombuffer(self.data, np.uint64)[(self.starts + self.steps) // ALIGN - 1]
        return not (last & _PADDING[padding]).any()
