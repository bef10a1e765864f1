"""Snapshots of one agent between turns, where they outlive its process: two slots in turn.

Written by the agent's process, read by the supervisor when that process is dead, and by the one
that takes its place. A slot that was being written when its writer died says so: its header is
taken away first and put back last. What is believed has the checksum of all its bytes, too.

Nothing logical depends on a snapshot: without one an agent repeats its turns from the first.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lockstep.workers.agent.globals import GLOBALS_MAX

# A store, two slots of the same size, each of them (little-endian; its size is a multiple of 4096):
#
#   0       8      16        24       32      40      44        48     52      56        60     64
#   +-------+------+---------+--------+-------+-------+---------+------+-------+---------+------+
#   | magic | turn | memory  | clock  | draws | pages | globals | open | crc32 | padding |      |
#   +-------+------+---------+--------+-------+-------+---------+------+-------+---------+------+
#   64      values of the globals, 16 bytes each, in the order of the module
#   4096    numbers of the pages of memory that are not zero, u32 each, rising
#   then, at the next multiple of 4096, those pages, 4096 bytes each
#
# turn    u64  the last one that it contains
# memory  u64  bytes of linear memory
# clock   i64  microseconds that the guest's clock has shown last
# draws   u64  of its randomness so far
# open    u32  standard streams that it has not closed, bit n: descriptor n
# crc32   u32  of everything else: header with 0 here, values, numbers, pages
HEADER = struct.Struct("<8sQQqQIIIIII")
MAGIC = b"LSSNAP1\0"
CRC_OFFSET = 52
VALUE_BYTES = 16
PAGE_BYTES = 4096
HEAD_BYTES = 4096
SLOTS = 2
_NUMBER_BYTES = 4
_PIECES_MAX = 1024  # Of one call of the kernel.
_PIECE_BYTES_MAX = 64 << 20

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Held:
    """What the state of a reactor is between turns, besides the bytes of its memory.

    Attributes:
        turn: The last turn that it contains.
        memory_bytes: Size of linear memory.
        values: Its mutable globals, `VALUE_BYTES` each, by index.
        clock_us: As `GuestClock.state`.
        draws: Draws of its randomness so far.
        streams: Standard streams that it has not closed.
    """

    turn: int
    memory_bytes: int
    values: tuple[bytes, ...]
    clock_us: int
    draws: int
    streams: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Slot:
    """One slot as its header describes it."""

    base: int
    head: bytes
    held: Held
    numbers: npt.NDArray[np.uint32]


class Store:
    """Room for the snapshots of one agent, in memory that no name leads to.

    Only what was written takes memory: twice what is not zero in the guest's. `create` in the
    supervisor before the fork; the child inherits ``descriptor``; `close` ends the supervisor's.

    Args:
        descriptor: Of the memory.
        memory_bytes_max: Largest linear memory of the agent.
    """

    def __init__(self, descriptor: int, memory_bytes_max: int) -> None:
        self.descriptor = descriptor
        pages = -(-memory_bytes_max // PAGE_BYTES)
        self._pages_at = HEAD_BYTES + _whole_pages(pages * _NUMBER_BYTES)
        self._slot_bytes = self._pages_at + pages * PAGE_BYTES
        self._memory_bytes_max = memory_bytes_max

    @classmethod
    def create(cls, memory_bytes_max: int) -> "Store":
        """An empty one.

        Raises:
            OSError: no descriptor or no memory for it.
        """
        descriptor = os.memfd_create("lockstep-snapshots", os.MFD_CLOEXEC)
        return cls(descriptor, memory_bytes_max)

    def close(self) -> None:
        """Give the memory back, as soon as no child has it any more."""
        os.close(self.descriptor)

    def write(self, held: Held, memory: Words) -> None:
        """Put a snapshot in place of the older one.

        Args:
            held: The state.
            memory: Linear memory in rows of one page. It must not change meanwhile.

        Raises:
            OSError: the kernel has no room for it. The newer one is still there.
        """
        base = self._slot_bytes * self._older()
        os.pwrite(self.descriptor, bytes(len(MAGIC)), base)
        numbers = np.flatnonzero(np.bitwise_or.reduce(memory, axis=1)).astype(np.uint32)
        index, pieces = numbers.tobytes(), list(_pieces(memory, numbers))
        head = _encode(held, len(numbers))
        crc = zlib.crc32(index, zlib.crc32(head))
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
        self._put([memoryview(index)], base + HEAD_BYTES)
        self._put(pieces, base + self._pages_at)
        # Last: from here on it counts. Calls of the kernel are seen in their order.
        self._put([memoryview(_with_crc(head, crc))], base)

    def newest(self, turn_max: int) -> int | None:
        """The last turn of the newest snapshot that is whole; None: there is none.

        Args:
            turn_max: The last turn of which the end is known. One of a later turn is passed over:
                nobody has its records.
        """
        turns = (slot.held.turn for slot in self._slots() if self._is_whole(slot))
        return max((turn for turn in turns if turn <= turn_max), default=None)

    def held(self, turn: int) -> Held:
        """The state after ``turn``, which `newest` gave.

        Raises:
            LookupError: there is no snapshot of it.
        """
        return self._slot(turn).held

    def read_memory(self, turn: int, memory: Words) -> None:
        """Write the memory after ``turn`` over ``memory``, of rows of one page.

        Raises:
            LookupError: there is no snapshot of it.
            OSError: it cannot be read.
        """
        slot = self._slot(turn)
        is_kept = np.zeros(len(memory), np.bool_)
        is_kept[slot.numbers] = True
        # Only pages that are not zero are written to: the others need no memory of their own.
        memory[np.bitwise_or.reduce(memory, axis=1).astype(np.bool_) & ~is_kept] = 0
        at = slot.base + self._pages_at
        for batch in _batches(_pieces(memory, slot.numbers)):
            count = sum(map(len, batch))
            _check_whole(os.preadv(self.descriptor, batch, at), count)
            at += count

    def _put(self, pieces: Sequence[memoryview], at: int) -> None:
        for batch in _batches(iter(pieces)):
            count = sum(map(len, batch))
            _check_whole(os.pwritev(self.descriptor, batch, at), count)
            at += count

    def _older(self) -> int:
        """Number of the slot that holds less: none, or the older one."""
        turns = {slot.base // self._slot_bytes: slot.held.turn for slot in self._slots()}
        return min(range(SLOTS), key=lambda number: turns.get(number, -1))

    def _slot(self, turn: int) -> _Slot:
        for slot in self._slots():
            if slot.held.turn == turn:
                return slot
        raise LookupError(f"no snapshot of turn {turn}")

    def _slots(self) -> list[_Slot]:
        """The slots that have a header that makes sense."""
        found = (self._read(number * self._slot_bytes) for number in range(SLOTS))
        return [slot for slot in found if slot is not None]

    def _read(self, base: int) -> _Slot | None:
        head = os.pread(self.descriptor, HEADER.size, base)
        if len(head) < HEADER.size or not head.startswith(MAGIC):
            return None
        _, turn, size, clock_us, draws, pages, globals_, streams, _, _, _ = HEADER.unpack(head)
        most = min(size, self._memory_bytes_max)
        if pages * PAGE_BYTES > most or size > self._memory_bytes_max or globals_ > GLOBALS_MAX:
            return None
        head += os.pread(self.descriptor, globals_ * VALUE_BYTES, base + HEADER.size)
        data = os.pread(self.descriptor, pages * _NUMBER_BYTES, base + HEAD_BYTES)
        if len(head) + len(data) < HEADER.size + globals_ * VALUE_BYTES + pages * _NUMBER_BYTES:
            return None
        values = tuple(
            head[at : at + VALUE_BYTES] for at in range(HEADER.size, len(head), VALUE_BYTES)
        )
        numbers = np.frombuffer(data, np.uint32)
        opened = frozenset(number for number in range(32) if streams >> number & 1)
        held = Held(turn, size, values, clock_us, draws, opened)
        return _Slot(base, head, held, numbers)

    def _is_whole(self, slot: _Slot) -> bool:
        """Whether its checksum is that of its bytes."""
        expected = int.from_bytes(slot.head[CRC_OFFSET : CRC_OFFSET + 4], "little")
        crc = zlib.crc32(slot.numbers.tobytes(), zlib.crc32(_with_crc(slot.head, 0)))
        at, left = slot.base + self._pages_at, len(slot.numbers) * PAGE_BYTES
        while left:
            data = os.pread(self.descriptor, min(left, 1 << 20), at)
            if not data:
                return False
            crc = zlib.crc32(data, crc)
            at, left = at + len(data), left - len(data)
        return crc == expected


def _encode(held: Held, pages: int) -> bytes:
    """Header and values, with 0 for the checksum."""
    opened = sum(1 << number for number in held.streams)
    sizes = pages, len(held.values), opened
    head = HEADER.pack(
        *(MAGIC, held.turn, held.memory_bytes, held.clock_us, held.draws), *sizes, 0, 0, 0
    )
    return head + b"".join(held.values)


def _with_crc(head: bytes, crc: int) -> bytes:
    return head[:CRC_OFFSET] + crc.to_bytes(4, "little") + head[CRC_OFFSET + 4 :]


def _pieces(memory: Words, numbers: npt.NDArray[np.uint32]) -> Iterator[memoryview]:
    """The pages of these numbers, neighbours in one piece."""
    if not len(numbers):
        return
    flat = memory.reshape(-1).data.cast("B")
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    starts = numbers[np.concatenate(([0], breaks))].tolist()
    ends = (numbers[np.concatenate((breaks - 1, [len(numbers) - 1]))] + 1).tolist()
    for start, end in zip(starts, ends, strict=True):
        for at in range(start * PAGE_BYTES, end * PAGE_BYTES, _PIECE_BYTES_MAX):
            yield flat[at : min(at + _PIECE_BYTES_MAX, end * PAGE_BYTES)]


def _batches(pieces: Iterator[memoryview]) -> Iterator[list[memoryview]]:
    """As many pieces as one call of the kernel takes, and not too many bytes of them."""
    batch: list[memoryview] = []
    size = 0
    for piece in pieces:
        if batch and (len(batch) == _PIECES_MAX or size + len(piece) > _PIECE_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += len(piece)
    if batch:
        yield batch


def _check_whole(found: int, expected: int) -> None:
    if found != expected:
        raise OSError(f"{found} of {expected} bytes of a snapshot")


def _whole_pages(count: int) -> int:
    return -(-count // PAGE_BYTES) * PAGE_BYTES
