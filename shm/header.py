"""Ring header: what both kinds of rings begin with.

The creator writes the first line before the fork and nobody afterwards; head and tail belong to
one process each. Both sides check the header once, when they open the ring, and keep a copy.
"""

from lockstep.shm.cursor import Cursor, Memory, byte_view
from lockstep.shm.errors import RingCorrupt

# Ring header, 256 bytes, native byte order. One writer per word.
#
#   0       8          16           24    64     72      80      88    192    200    256
#   +-------+----------+------------+- - -+------+-------+-------+- - -+------+- - - +-- ..
#   | magic | capacity | slot_bytes |     | head | rings | waits |     | tail |      | data
#   +-------+----------+------------+- - -+------+-------+-------+- - -+------+- - - +-- ..
#             the creator's                      the producer's        the consumer's
#
# magic       u64  which kind of ring; written last by the creator.
# capacity    u64  of the data, a power of two: bytes of a byte ring, slots of a slot ring.
# slot_bytes  u64  bytes of one slot; 0 in a byte ring.
# head, tail  u64  bytes (slots) ever published / consumed. They only grow and never wrap:
#                  offset = cursor & (capacity - 1).
#
# rings       u64  how often the producer was about to ring, if it counts: for a consumer that has
#                  one doorbell for many rings and finds those that rang by one vector compare.
# waits       u64  how often the producer found no room and says that it waits for it. The consumer
#                  rings the producer's doorbell after draining only if this has moved: it cannot
#                  miss it, as the producer rings, too, behind it, and then waits. Both words are
#                  only ever compared with what they were: a wrong one costs a vain look.
#
# Head, tail and data are 128 bytes apart, as CPUs fetch cache lines of 64 bytes in pairs.
# Publish order: payload, then head, then the doorbell (`cursor` says why that is enough).
HEADER_BYTES = 256
OFFSETS = {
    "magic": 0,
    "capacity": 8,
    "slot_bytes": 16,
    "head": 64,
    "rings": 72,
    "waits": 80,
    "tail": 192,
}

MAGIC_RING = int.from_bytes(b"LSring\x00\x01", "little")
MAGIC_SLOTS = int.from_bytes(b"LSslot\x00\x01", "little")


def power_of_two_within(limit: int) -> int:
    """The largest power of two that is at most ``limit``; 0 if there is none."""
    return 1 << (limit.bit_length() - 1) if limit > 0 else 0


def initialise(memory: Memory, magic: int, capacity: int, slot_bytes: int) -> None:
    """Write a fresh header: an empty ring. No side may have it open."""
    with byte_view(memory) as view:
        view[:HEADER_BYTES] = bytes(HEADER_BYTES)
    for name, value in (("capacity", capacity), ("slot_bytes", slot_bytes), ("magic", magic)):
        word = Cursor(memory, OFFSETS[name])
        word.store(value)
        word.release()


def check(memory: Memory, magic: int, slot_bytes: int, label: str) -> int:
    """The capacity of a ring whose header makes sense.

    Raises:
        RingCorrupt: wrong magic, slot size or capacity, or more than the memory holds.
    """
    if len(memory) < HEADER_BYTES:
        raise RingCorrupt(f"{label}: {len(memory)} bytes, expected a header of {HEADER_BYTES}")
    _expect(label, "magic", _word(memory, "magic"), magic)
    _expect(label, "slot_bytes", _word(memory, "slot_bytes"), slot_bytes)
    capacity = _word(memory, "capacity")
    most = (len(memory) - HEADER_BYTES) // (slot_bytes or 1)
    if capacity < 1 or capacity & (capacity - 1) or capacity > most:
        raise RingCorrupt(
            f"{label}: capacity is {capacity}, expected a power of two up to {most}; nothing was "
            "taken"
        )
    return capacity


def _word(memory: Memory, name: str) -> int:
    word = Cursor(memory, OFFSETS[name])
    value = word.load()
    word.release()
    return value


def _expect(label: str, field: str, found: int, expected: int) -> None:
    if found != expected:
        raise RingCorrupt(
            f"{label}: {field} is {found:#x}, expected {expected:#x}; nothing was taken"
        )
