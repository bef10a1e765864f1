"""Rings measured as their peers are (bench/peer/transports.py): ``python -m lockstep.bench.rings``.

A child at the other end of rings and slots, asked for rounds by lines of JSON. What is measured is
the public face of `lockstep.shm`: an outlet and an inlet for messages one by one, slots for
vectors, an exchange for round trips.
"""

import ctypes
import json
import os
import signal
import sys
import time
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np

from lockstep import shm
from lockstep.engine.record import HEADER, HEADER_BYTES, PEER_NONE, Kind
from lockstep.engine.version import VERSION
from lockstep.workers.spawn import PR_SET_PDEATHSIG

# Bytes of a message, and of the ring for them: many small ones, 32 of 64 KiB, eight of 1 MiB. In a
# ring of sixteen both sides wait for one another more often, and a message takes 1.6 times as long.
CAPACITIES = {64: 1 << 18, 1024: 1 << 18, 65_536: 1 << 21, 1_048_576: 1 << 23}
PAYLOADS = 4  # Messages differ from one to the next, as those of the peers.
SLOT = np.dtype([("number", "<u8"), ("data", "V56")])  # 64 bytes.
SLOTS_CAPACITY, SLOTS_BATCH = 4096, 256


def header_of(size: int) -> bytes:
    """Of every message of one size."""
    return HEADER.pack(HEADER_BYTES + size, Kind.SEND, 0, 0, 0, PEER_NONE, 0)


class Way:
    """A ring for messages of one size, from the parent to the child."""

    def __init__(self, memory: memoryview, size: int) -> None:
        shm.create_ring(memory)
        self._memory, self._size = memory, size
        self._payloads = [bytes([number]) * size for number in range(PAYLOADS)]
        self._filled, self._drained = shm.Doorbell.create(), shm.Doorbell.create()
        self._near: shm.Outlet | None = None
        self._far: shm.Inlet | None = None

    def send(self, count: int, each: bool) -> None:
        """Send ``count`` messages, in batches or ``each`` by itself."""
        if self._near is None:
            writer = shm.RingWriter(self._memory)
            self._near = shm.Outlet(writer, self._filled, self._drained)
        batch = shm.Batch(self._near)
        send = self._near.send if each else batch.add
        header, payloads = header_of(self._size), self._payloads
        for number in range(count):
            send(header, payloads[number % PAYLOADS])
        batch.flush()

    def look(self, count: int) -> int:
        """Take messages and look at the first and the last byte of each; how many were right."""
        if self._far is None:
            self._far = shm.Inlet(shm.RingReader(self._memory), self._filled, self._drained)
        receive = self._far.receive
        first, last, right, number = HEADER_BYTES, HEADER_BYTES + self._size - 1, 0, 0
        while number < count:
            for message in receive():
                if message[first] == number % PAYLOADS == message[last]:
                    right += 1
                number += 1
        return right


class SlotWay:
    """A ring of slots, pushed and drained as vectors."""

    def __init__(self, memory: memoryview) -> None:
        shm.create_slots(memory, SLOT)
        self._memory = memory
        self._filled, self._drained = shm.Doorbell.create(), shm.Doorbell.create()
        self._near: shm.SlotWriter | None = None
        self._far: shm.SlotReader | None = None

    def send(self, count: int) -> None:
        """Send ``count`` slots."""
        if self._near is None:
            self._near = shm.SlotWriter(self._memory, SLOT)
        vector = np.zeros(SLOTS_BATCH, SLOT)
        vector["number"] = np.arange(SLOTS_BATCH)
        sent = 0
        while sent < count:
            start = sent % SLOTS_BATCH
            taken = self._near.push(vector[start : start + count - sent])
            self._near.announce(waiting=not taken)
            self._filled.ring()
            if not taken:
                self._drained.wait()
            sent += taken

    def look(self, count: int) -> int:
        """Take slots and look at the number of each; how many were right."""
        if self._far is None:
            self._far = shm.SlotReader(self._memory, SLOT)
        expected = np.arange(SLOTS_BATCH + SLOTS_CAPACITY) % SLOTS_BATCH
        right = number = 0
        while number < count:
            taken = self._far.drain()
            if self._far.awaited():
                self._drained.ring()
            if not len(taken):
                self._filled.wait()
                continue
            start = number % SLOTS_BATCH
            right += int((taken["number"] == expected[start : start + len(taken)]).sum())
            number += len(taken)
        return right


class RoundWay:
    """Two rings and two bells, there and back."""

    def __init__(self, memory: memoryview) -> None:
        half = len(memory) // 2
        self._rings = memory[:half], memory[half:]
        for ring in self._rings:
            shm.create_ring(ring)
        self._bells = shm.Doorbell.create(trusted=True), shm.Doorbell.create(trusted=True)
        self._made: tuple[shm.Exchange, shm.Outlet, shm.RingReader] | None = None

    def turns(self, size: int, count: int) -> list[int]:
        """Nanoseconds of each of ``count`` round trips."""
        exchange, outlet, reader = self._ends(0)
        record, times = header_of(size) + bytes(size), []
        for _ in range(count):
            begun = time.perf_counter_ns()
            if not exchange.send(record):  # At the end of the ring, now and then.
                outlet.send(record)
            answer = exchange.receive() or reader.drain()
            times.append(time.perf_counter_ns() - begun)
            if answer != record:
                raise RuntimeError("an answer was damaged")
        return times

    def echo(self, count: int) -> None:
        """Answer ``count`` messages by themselves."""
        exchange, outlet, reader = self._ends(1)
        for _ in range(count):
            record = exchange.receive() or reader.drain()
            if not exchange.send(record):
                outlet.send(record)

    def _ends(self, me: int) -> tuple[shm.Exchange, shm.Outlet, shm.RingReader]:
        if self._made is None:
            reader = shm.RingReader(self._rings[me])
            writer = shm.RingWriter(self._rings[1 - me])
            bell, peer_bell = self._bells[me], self._bells[1 - me]
            exchange = shm.Exchange(reader, writer, bell, peer_bell, counted=False)
            self._made = exchange, shm.Outlet(writer, peer_bell, bell), reader
        return self._made


class WakeWay:
    """Two words and two bells: each side stores, rings, and waits for the other's word to move."""

    def __init__(self, memory: memoryview) -> None:
        self._words = shm.Cursor(memory, 0), shm.Cursor(memory, 128)
        self._bells = shm.Doorbell.create(trusted=True), shm.Doorbell.create(trusted=True)

    def turns(self, count: int) -> list[int]:
        """Nanoseconds of each of ``count`` round trips."""
        (mine, theirs), (bell, peer_bell), times = self._words, self._bells, []
        first = theirs.load()
        for number in range(first, first + count):
            begun = time.perf_counter_ns()
            mine.notify(number + 1, peer_bell)
            theirs.wait(number, bell)
            times.append(time.perf_counter_ns() - begun)
        return times

    def echo(self, count: int) -> None:
        """The far side of as many."""
        (theirs, mine), (peer_bell, bell) = self._words, self._bells
        first = mine.load()
        for number in range(first, first + count):
            theirs.wait(number, bell)
            mine.notify(number + 1, peer_bell)


class Rings:
    """All ways, and the child at their far ends."""

    def __init__(self) -> None:
        rings = [shm.ring_bytes(capacity) for capacity in CAPACITIES.values()]
        slot_bytes = shm.slots_bytes(SLOTS_CAPACITY, SLOT)
        arena = shm.Arena.create([*rings, slot_bytes, 2 * rings[0], 4096])
        *memories, slots, both, words = map(arena.slice, range(len(arena)))
        self._ways = {
            size: Way(memory, size) for size, memory in zip(CAPACITIES, memories, strict=True)
        }
        self._slots, self._round, self._wake = SlotWay(slots), RoundWay(both), WakeWay(words)
        self._control, far = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                self._control.close()
                self._serve(far)
            finally:
                os._exit(0)
        far.close()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request, as the peers get them."""
        way, size, count = request["way"], request["size"], request.get("messages", 0)
        if turns := request.get("turns"):
            self._control.send(("wake" if way == "wake" else "round", size, turns))
            if way == "wake":
                return {"times_ns": self._wake.turns(turns)}
            return {"times_ns": self._round.turns(size, turns)}
        self._control.send((way, size, count))
        begun = time.perf_counter_ns()
        if way == "slots":
            self._slots.send(count)
        else:
            self._ways[size].send(count, each=way == "each")
        if self._control.recv() != count:
            raise RuntimeError("messages were lost or damaged")
        return {"ns": time.perf_counter_ns() - begun}

    def _serve(self, control: "Connection[Any, Any]") -> None:
        while True:
            way, size, count = control.recv()  # EOFError, when nobody asks any more, ends it.
            if way == "round":
                self._round.echo(count)
            elif way == "wake":
                self._wake.echo(count)
            else:
                look = self._slots.look if way == "slots" else self._ways[size].look
                control.send(look(count))

    def close(self) -> None:
        """End the child."""
        self._control.close()
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)


def main() -> None:
    """Answer requests until there are no more."""
    reading, writing = map(int, sys.argv[1:])
    os.set_inheritable(reading, False)
    os.set_inheritable(writing, False)
    rings = Rings()
    with (
        os.fdopen(reading, "rb", buffering=0) as requests,
        os.fdopen(writing, "wb", buffering=0) as answers,
    ):
        answers.write(json.dumps({"versions": {"lockstep": VERSION}}).encode() + b"\n")
        while line := requests.readline():
            answers.write(json.dumps(rings.answer(json.loads(line))).encode() + b"\n")
    rings.close()


if __name__ == "__main__":
    main()
