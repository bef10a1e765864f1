"""Random walks: the ring beside a deque of records, the slots beside a deque of numbers.

Every way in is mixed with every way out, and both sides are closed and opened again in between.
"""

import struct
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lockstep.shm import (
    Claim,
    RingFull,
    RingReader,
    RingViews,
    RingWriter,
    SlotReader,
    SlotWriter,
    create_ring,
    create_slots,
    ring_bytes,
    slots_bytes,
)
from lockstep.shm.header import OFFSETS


def make(payload: bytes, kind: int = 3) -> bytes:
    size = 32 + len(payload)
    return struct.pack("<IHHQQII", size, kind, 0, 0, 0, 0, 0) + payload + bytes(-size % 8)


def peek(memory: Any, name: str) -> int:
    return int(struct.unpack_from("=Q", memory, OFFSETS[name])[0])


class RingBesideDeque(RuleBasedStateMachine):
    """The ring against a deque of records and a room computed from the drawing alone."""

    @initialize(power=st.integers(6, 10))
    def begin(self, power: int) -> None:
        self.capacity = 1 << power
        self.memory: Any = bytearray(ring_bytes(self.capacity))
        create_ring(self.memory)
        self.model: deque[bytes] = deque()
        self.pushed = self.popped = 0
        self.head = self.tail = 0
        self.open()

    def open(self) -> None:
        self.writer, self.reader = RingWriter(self.memory), RingReader(self.memory)
        self.views = RingViews(self.reader)
        self.counted = self.pushed, self.popped

    def model_push(self, record: bytes) -> bool:
        gap = self.capacity - self.head % self.capacity
        needed = len(record) + (gap if gap < len(record) else 0)
        if needed > self.capacity - (self.head - self.tail):
            return False
        self.head += needed
        self.pushed += 1
        self.model.append(record)
        return True

    def model_pop(self) -> bytes:
        self.popped += 1
        return self.model.popleft()

    def some_record(self, share: float) -> bytes:
        most = self.capacity // 2 - 32
        return make(
            self.pushed.to_bytes(8, "little")[: round(share * most)].ljust(
                round(share * most), b"."
            )
        )

    @rule(share=st.floats(0, 1))
    def push(self, share: float) -> None:
        record = self.some_record(share)
        if self.model_push(record):
            self.writer.push(record)
        else:
            with pytest.raises(RingFull):
                self.writer.push(record)

    @rule(share=st.floats(0, 1), gives_up=st.booleans())
    def claim(self, share: float, gives_up: bool) -> None:
        record = self.some_record(share)
        size = struct.unpack_from("<I", record)[0]
        try:
            with Claim(self.writer, size) as room:
                room[:] = record[:size]
                if gives_up:
                    raise KeyError
                assert self.model_push(record)
        except KeyError:
            pass
        except RingFull:
            assert not self.model_push(record)

    @rule(shares=st.lists(st.floats(0, 1), max_size=20))
    def push_many(self, shares: list[float]) -> None:
        records = [self.some_record(share) for share in shares]
        taken = 0
        while taken < len(records) and self.model_push(records[taken]):
            taken += 1
        stop = self.writer.push_many(make(b"!") + b"".join(records), 40)
        assert stop == 40 + sum(map(len, records[:taken]))

    @rule(limit=st.none() | st.integers(0, 1024))
    def drain(self, limit: int | None) -> None:
        expected = b""
        while self.model and (
            limit is None or not expected or len(expected) + len(self.model[0]) <= limit
        ):
            expected += self.model_pop()
        assert self.reader.drain(limit) == expected

    @rule()
    def pop(self) -> None:
        assert self.reader.pop() == (self.model_pop() if self.model else b"")

    @rule()
    def take_views(self) -> None:
        """Any number of them, one at least if there is one: each the next in order."""
        found = self.views.take()
        assert bool(found) == bool(self.model)
        for view in found:
            record = self.model_pop()
            assert view == record[: struct.unpack_from("<I", record)[0]]

    @rule()
    def reopen(self) -> None:
        self.writer.close()
        self.reader.close()
        self.open()

    @invariant()
    def cursors_agree(self) -> None:
        self.tail = peek(self.memory, "tail")  # Where padding is skipped is the reader's choice.
        assert peek(self.memory, "head") == self.head
        assert 0 <= self.head - self.tail <= self.capacity

    @invariant()
    def records_are_counted(self) -> None:
        pushed, popped = self.counted
        assert self.writer.statistics.records == self.pushed - pushed
        assert self.reader.statistics.records == self.popped - popped


TestRingBesideDeque = RingBesideDeque.TestCase
TestRingBesideDeque.settings = settings(
    deadline=None, database=None, max_examples=100, stateful_step_count=40
)

SLOT = np.dtype([("number", "<u8"), ("half", "<u4"), ("sign", "<i4")])


def slots(numbers: list[int]) -> np.ndarray:  # type: ignore[type-arg]
    array = np.zeros(len(numbers), SLOT)
    array["number"] = numbers
    array["half"] = array["number"] // 2
    array["sign"] = -array["number"].astype(np.int64)
    return array


class SlotsBesideDeque(RuleBasedStateMachine):
    """The slot ring against a deque of numbers."""

    @initialize(power=st.integers(0, 6))
    def begin(self, power: int) -> None:
        self.capacity = 1 << power
        self.memory: Any = bytearray(slots_bytes(self.capacity, SLOT))
        create_slots(self.memory, SLOT)
        self.model: deque[int] = deque()
        self.pushed = self.times_full = 0
        self.open()

    def open(self) -> None:
        self.writer, self.reader = SlotWriter(self.memory, SLOT), SlotReader(self.memory, SLOT)
        self.times_full = 0

    @rule(count=st.integers(0, 80))
    def push(self, count: int) -> None:
        numbers = list(range(self.pushed, self.pushed + count))
        taken = min(count, self.capacity - len(self.model))
        assert self.writer.push(slots(numbers)) == taken
        self.model += numbers[:taken]
        self.pushed += taken
        self.times_full += taken < count

    @rule()
    def drain(self) -> None:
        assert np.array_equal(self.reader.drain(), slots(list(self.model)))
        self.model.clear()

    @rule()
    def reopen(self) -> None:
        self.writer.close()
        self.reader.close()
        self.open()

    @invariant()
    def cursors_agree(self) -> None:
        assert peek(self.memory, "head") == self.pushed
        assert peek(self.memory, "tail") == self.pushed - len(self.model)
        assert self.writer.statistics.times_full == self.times_full


TestSlotsBesideDeque = SlotsBesideDeque.TestCase
TestSlotsBesideDeque.settings = settings(
    deadline=None, database=None, max_examples=100, stateful_step_count=40
)
