"""The short lane: `lockstep.turn` of the common turn, from the guest's call to its return.

Common is a turn that logged nothing, whose records are plain and within all limits, called with
good pointers. For it, what `HostCalls`, `Guest.turn`, `Fuel`, `GuestMemory` and `TurnRecords` do
one after the other is done here in a straight line, with the same bytes sent, the same fuel charged
and the same bytes handed over. A turn of an agent that has slept pays for every line of memory
that it touches, not for instructions: so the fewer objects and frames, the better.

Until the turn is sent nothing is changed: whatever is not common takes the ordinary way from its
beginning, and is judged there alone.
"""

import ctypes
import struct
from hashlib import sha256 as long_sha256
from typing import Protocol

from lockstep.engine.record import DIGEST_BYTES, HEADER_BYTES, Kind, Outcome
from lockstep.workers.agent.crossing import Callback, HostCalls, trap
from lockstep.workers.agent.fuel import HOST_CALL_FUEL, Fuel
from lockstep.workers.agent.memory import GuestMemory
from lockstep.workers.agent.native import LANES
from lockstep.workers.agent.spec import AgentSpec
from lockstep.workers.agent.turn import (
    SHORT_BYTES,
    TurnRecords,
    count_plain,
    count_plain_batch,
    short_sha256,
)

# END without a reason, as `encode_end` makes it.
_END = struct.Struct(f"<IHHQQII{DIGEST_BYTES}s")
_END_BYTES = HEADER_BYTES + DIGEST_BYTES
_END_KIND, _BLOCKED = int(Kind.END), int(Outcome.BLOCKED)

_Words = ctypes.c_int32 * (4 * LANES)
_Lanes = ctypes.POINTER(ctypes.c_int32)
_OUT, _OUT_SIZE, _INTO, _ROOM = range(0, 4 * LANES, LANES)
_SHORT, _LONG = (count_plain, short_sha256), (count_plain_batch, long_sha256)
_PLACES_MAX = 16  # Of arguments: a guest calls from few depths of its stack.


class Turns(Protocol):
    """The turns of one guest, as `Guest` keeps them.

    Attributes:
        number: Of the running one.
        kept: Events that the guest had no room for yet.
    """

    number: int
    kept: bytes | None

    def answer(self, records: bytes) -> bytes:
        """End the turn and wait for the next one, which begins but for its fuel; its events."""

    def keep(self, events: bytes) -> None:
        """Begin the turn's fuel, and keep its events."""

    def hand_over(self, into: int, room: int) -> int:
        """Give the guest what is kept; the result of its call."""


class Lane:
    """One guest's.

    Args:
        turns: Of the guest.
        host: Its host functions.
        fuel: Its fuel.
        memory: Its memory.
        records: What its turn has written.
        spec: The agent, or another of its group.
        ordinary: The ordinary way.
    """

    __slots__ = (
        *("_fuel", "_get_fuel", "_host", "_memory", "_ordinary", "_out_max", "_places"),
        *("_record_max", "_records", "_turn_max", "_turns"),
    )

    def __init__(
        self,
        turns: Turns,
        host: HostCalls,
        fuel: Fuel,
        memory: GuestMemory,
        records: TurnRecords,
        spec: AgentSpec,
        ordinary: Callback,
    ) -> None:
        self._turns = turns
        self._host = host
        self._fuel = fuel
        self._memory = memory
        self._records = records
        self._ordinary = ordinary
        self._get_fuel, self._turn_max = fuel.tank.get_fuel, fuel.turn_max
        self._out_max, self._record_max = spec.turn_out_bytes_max, spec.record_bytes_max
        self._places: dict[int, memoryview] = {}  # Arguments that were met, by their address.

    def call(self, env: None, caller: int, lanes: int, count: int) -> int | None:
        """As `native.BARE_CALLBACK`."""
        # An exception that left this function would be printed and forgotten (`Accidents`).
        try:
            words = self._places.get(lanes) or self._place(lanes)
            out, size, into, room = words[_OUT], words[_OUT_SIZE], words[_INTO], words[_ROOM]
            turns, memory = self._turns, self._memory
            end = -1 if memory.found is None else memory.found.size
            burnt = self._turn_max - self._get_fuel() + HOST_CALL_FUEL + size
            if (
                not (out >= 0 <= size <= self._out_max and into >= 0 <= room)
                or out + size > end
                or into + room > end
                or burnt > self._turn_max
                or self._records.touched
                or turns.kept is not None
            ):
                return self._ordinary(env, caller, ctypes.cast(lanes, _Lanes), count)
            data = memory.bytes[out : out + size]
            count_of, sha256 = _SHORT if size < SHORT_BYTES else _LONG
            found = count_of(data, self._record_max)
            if found is None:
                return self._ordinary(env, caller, ctypes.cast(lanes, _Lanes), count)
            head = _END_BYTES, _END_KIND, _BLOCKED, turns.number, burnt, found, 0
            events = turns.answer(data + _END.pack(*head, sha256(data).digest()))
            size = len(events)
            if size <= room and self._fuel.begin_quietly(size):
                memory.view[into : into + size] = events
                words[0] = size
            else:
                turns.keep(events)
                words[0] = turns.hand_over(into, room)
                self._fuel.give()
            return None
        except BaseException as error:
            self._host.raised = error
        return trap()

    def _place(self, lanes: int) -> memoryview:
        """The arguments at an address of the guest's stack, results in place of the first."""
        if len(self._places) >= _PLACES_MAX:
            self._places.clear()
        words = memoryview(_Words.from_address(lanes)).cast("B").cast("i")
        self._places[lanes] = words
        return words
