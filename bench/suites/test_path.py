"""The way of a turn through shared memory: an agent's ring, its seat, and back. No process."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from lockstep import shm
from lockstep.engine.record import Kind, Outcome, TurnEnd, encode, encode_end, encode_wake
from lockstep.workers.links import AgentLink, RingPair, ring_slice_bytes
from lockstep.workers.seat import Seat

RECORD_BYTES_MAX = 65_536
MESSAGES = [1, 10, 500]


class Far:
    """The agent's end of a link, in this process."""

    def __init__(self) -> None:
        half = shm.page_aligned(ring_slice_bytes(RECORD_BYTES_MAX))
        self.bell = shm.SharedDoorbell()
        self.pair = RingPair.create(memoryview(bytearray(2 * half)), self.bell)
        self.seat = Seat("agent", AgentLink(self.pair, "agent"))
        self.reader = shm.RingReader(self.pair.down)
        self.writer = shm.RingWriter(self.pair.up)


def turn_of(messages: int) -> bytes:
    """A turn as an agent process sends it: its records, then END."""
    records = b"".join(encode(Kind.SEND, bytes(64), id=n, peer=0) for n in range(messages))
    digest = hashlib.sha256(records).digest()
    return records + encode_end(TurnEnd(0, Outcome.BLOCKED, 2_000, messages, digest, ""))


@pytest.fixture
def far() -> Any:
    end = Far()
    yield end
    end.pair.close()
    end.bell.close()


@pytest.mark.parametrize("messages", MESSAGES)
def test_a_turn_comes_in(benchmark: Any, far: Far, messages: int) -> None:
    data = turn_of(messages)

    def turn() -> int:
        assert far.writer.push_many(data, 0) == len(data)
        return len(far.seat.receive())

    assert benchmark(turn) == 1


@pytest.mark.parametrize("messages", MESSAGES)
def test_a_wake_goes_out(benchmark: Any, far: Far, messages: int) -> None:
    events = b"".join(encode(Kind.MESSAGE, bytes(64), id=n, peer=0) for n in range(messages))
    wake = encode_wake(1, 0, 1, events, messages)
    drain: Callable[[], Any] = far.reader.drain

    def send() -> int:
        far.seat.link.send(wake)
        return len(drain())

    assert benchmark(send) == len(wake)
