"""The wire: pieces of any size, full rings, and who is woken when."""

import pytest

from lockstep.engine.errors import LockstepBug
from lockstep.engine.record import Kind, aligned, encode, encode_wake
from lockstep.shm import ring
from lockstep.workers.agent.channel import Inbox, RingChannel, Wake

EVENTS = encode(Kind.ITEM, b"abcde", item=1) + encode(Kind.CLOSE)


class Pieces:
    """A channel that hands over what it has, ``size`` bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._pieces = [data[at : at + size] for at in range(0, len(data), size)]

    def send(self, records: bytes) -> None:
        raise AssertionError(records)

    def receive(self) -> bytes:
        return self._pieces.pop(0)

    def exchange(self, records: bytes) -> bytes:
        raise AssertionError(records)


@pytest.mark.parametrize("size", [1, 7, 8, 31, 32, 33, 64, 1000])
def test_wakes_are_found_in_any_cut(size: int) -> None:
    stream = encode_wake(1, 5, 2, EVENTS, 2) + encode_wake(2, 6, 0, b"", 0) + encode(Kind.SHUTDOWN)
    inbox = Inbox(Pieces(stream, size))
    assert inbox.next() == Wake(1, 5, 2, EVENTS)
    assert inbox.next() == Wake(2, 6, 0, b"")
    assert inbox.next() is None


@pytest.mark.parametrize(
    "data",
    [
        encode(Kind.CLOSE),
        encode(Kind.WAKE),
        b"\x01" + bytes(31),
        encode(Kind.WAKE, bytes(16), flags=1),
        encode_wake(1, 5, 2, EVENTS, 2)[:28] + b"\1\0\0\0" + bytes(16) + EVENTS,
    ],
)
def test_nonsense_from_the_supervisor_is_our_bug_not_the_guests(data: bytes) -> None:
    with pytest.raises(LockstepBug):
        Inbox(Pieces(data, 1000)).next()


class Peer:
    """Both rings and both doorbells; waiting lets the supervisor do its next step."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent = b""
        self.arriving: list[bytes] = []
        self.log: list[str] = []

    def drain(self) -> bytes:
        self.log.append("drain")
        return self.arriving.pop(0) if self.arriving else b""

    def push_many(self, records: bytes, start: int = 0) -> int:
        self.log.append("push")
        offset = start
        while offset < len(records):
            size = aligned(int.from_bytes(records[offset : offset + 4], "little"))
            if size > self.room:
                break
            self.sent += records[offset : offset + size]
            self.room -= size
            offset += size
        return offset

    def ring(self) -> None:
        self.log.append("ring")

    def wait(self, timeout_s: float | None = None) -> bool:
        assert timeout_s is None
        self.log.append("wait")
        self.room += 48
        self.arriving.append(EVENTS)
        return True


def test_sender_waits_for_room_and_rings_after_each_batch() -> None:
    peer = Peer(room=48)
    records = encode(Kind.EMIT, b"0123456789") * 3
    RingChannel(peer, peer, peer, peer).send(records)
    assert peer.sent == records
    assert peer.log == [
        "push",
        "ring",
        "push",
        "wait",
        "push",
        "ring",
        "push",
        "wait",
        "push",
        "ring",
    ]


def test_receiver_looks_before_it_waits() -> None:
    peer = Peer(room=0)
    channel = RingChannel(peer, peer, peer, peer)
    assert channel.receive() == EVENTS
    assert peer.log == ["drain", "wait", "drain"]
    peer.arriving = [EVENTS]
    peer.log.clear()
    assert channel.receive() == EVENTS
    assert peer.log == ["drain"]


def test_receiver_says_that_there_is_room_before_it_waits_and_only_then() -> None:
    """The supervisor may keep back what did not fit; who sends rings anyhow."""
    peer = Peer(room=0)
    peer.arriving = [EVENTS]
    channel = RingChannel(peer, peer, peer, peer)
    channel.receive()
    channel.receive()
    assert peer.log == ["drain", "drain", "ring", "wait", "drain"]
    peer.log.clear()
    channel.send(encode(Kind.CLOSE))
    channel.receive()
    assert peer.log == ["push", "ring", "drain", "wait", "drain"]


def test_sender_says_that_it_made_room_before_it_waits_for_some() -> None:
    """Else both sides could wait for room in the other's ring."""
    peer = Peer(room=0)
    peer.arriving = [EVENTS]
    channel = RingChannel(peer, peer, peer, peer)
    channel.receive()
    channel.send(encode(Kind.CLOSE))
    assert peer.log == ["drain", "push", "ring", "wait", "push", "ring"]


class Supervisor:
    """The other ends of two real rings; it moves whenever the agent waits."""

    def __init__(self, capacity: int) -> None:
        self.memories = [memoryview(bytearray(ring.ring_bytes(capacity))) for _ in range(2)]
        for memory in self.memories:
            ring.create(memory)
        self._reader = ring.RingReader(self.memories[0])
        self._writer = ring.RingWriter(self.memories[1])
        self.sending = b""
        self.sent = 0
        self.received = b""

    def ring(self) -> None:
        pass

    def wait(self, timeout_s: float | None = None) -> bool:
        self.received += self._reader.drain()
        self.sent = self._writer.push_many(self.sending, self.sent)
        return True


def test_streams_larger_than_the_rings_go_through_whole() -> None:
    supervisor = Supervisor(capacity=1024)
    to, back = supervisor.memories
    channel = RingChannel(ring.RingReader(back), ring.RingWriter(to), supervisor, supervisor)
    records = b"".join(encode(Kind.EMIT, bytes(n), item=n) for n in range(400))
    channel.send(records)
    supervisor.wait()
    assert supervisor.received == records
    supervisor.sending = encode_wake(1, 2, 3, records, 400) + encode(Kind.SHUTDOWN)
    inbox = Inbox(channel)
    assert inbox.next() == Wake(1, 2, 3, records)
    assert inbox.next() is None
