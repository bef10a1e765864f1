"""``poll_oneoff``: sleeping without waiting."""

import struct
from collections.abc import Set as AbstractSet

from lockstep.workers.agent.clock import GuestClock
from lockstep.workers.agent.memory import GuestMemory

CLOCKS = range(4)  # Realtime, monotonic, process and thread CPU time: all the same.
POLLS_MAX = 1024

SUCCESS = 0
EBADF = 8
EINVAL = 28

# Subscription, 48 bytes, and event, 32 bytes, little-endian.
#
#   0          8      16         24        32          40       48
#   +----------+------+----------+---------+-----------+--------+
#   | userdata | type | clock id | timeout | precision | flags  |   type 0
#   |          |      | fd       |                              |   type 1 read, 2 write
#   +----------+------+----------+---------+-----------+--------+
#
#   0          8       10     16          24        32
#   +----------+-------+------+-----------+---------+
#   | userdata | errno | type | fd: bytes | flags   |
#   +----------+-------+------+-----------+---------+
_SUBSCRIPTION = struct.Struct("<QB7xI4xQQH6x")
_EVENT = struct.Struct("<QHB5xQH6x")
_CLOCK, _READ, _WRITE = 0, 1, 2
_ABSOLUTE = 1
_HANGUP = 1


def poll(
    memory: GuestMemory,
    clock: GuestClock,
    descriptors: AbstractSet[int],
    subscriptions: int,
    events: int,
    count: int,
    result: int,
) -> int:
    """Answer ``count`` subscriptions, 1 to `POLLS_MAX`.

    A standard stream is always ready, so time stands still if one is asked for. Otherwise the
    clock goes to the earliest deadline, and what is due then is reported.
    """
    memory.span(events, count * _EVENT.size, "poll_oneoff: events")
    memory.span(result, 4, "poll_oneoff: result")
    data = memory.read(subscriptions, count * _SUBSCRIPTION.size, "poll_oneoff: subscriptions")
    now_us = clock.read_us()
    ready: list[tuple[int, bytes]] = []
    sleeping: list[tuple[int, int, int]] = []
    for place, fields in enumerate(_SUBSCRIPTION.iter_unpack(data)):
        userdata, kind, name, timeout_ns, _, flags = fields
        if kind == _CLOCK and name in CLOCKS:
            begin_us = 0 if flags & _ABSOLUTE else now_us
            sleeping.append((begin_us - (-timeout_ns // 1000), place, userdata))
        elif kind in (_CLOCK, _READ, _WRITE):
            ready.append((place, _at_once(userdata, kind, name, descriptors)))
        else:
            return EINVAL
    until_us = now_us
    if not ready:
        until_us = max(now_us, min(sleeping)[0])
        clock.advance_to(until_us)
    ready += [
        (place, _EVENT.pack(userdata, SUCCESS, _CLOCK, 0, 0))
        for deadline_us, place, userdata in sleeping
        if deadline_us <= until_us
    ]
    ready.sort()  # In the order they were asked for.
    memory.write(events, b"".join(event for _, event in ready), "poll_oneoff: events")
    memory.write_u32(result, len(ready), "poll_oneoff: result")
    return SUCCESS


def _at_once(userdata: int, kind: int, name: int, descriptors: AbstractSet[int]) -> bytes:
    """The event of a standard stream, or of what is none."""
    if kind == _CLOCK:
        return _EVENT.pack(userdata, EINVAL, kind, 0, 0)
    wanted = (0,) if kind == _READ else (1, 2)
    if name not in wanted or name not in descriptors:
        return _EVENT.pack(userdata, EBADF, kind, 0, 0)
    return _EVENT.pack(userdata, SUCCESS, kind, 0, _HANGUP if kind == _READ else 0)
