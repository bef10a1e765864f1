"""The header is where the drawing says, and nothing else is believed."""

import struct

import pytest

from lockstep.shm import RingCorrupt, RingReader, RingWriter, create_ring, header, ring_bytes
from lockstep.shm.header import MAGIC_RING, MAGIC_SLOTS, OFFSETS, power_of_two_within


def word(memory: bytearray, offset: int) -> int:
    return int(struct.unpack_from("=Q", memory, offset)[0])


def test_each_field_is_at_its_offset(record) -> None:  # type: ignore[no-untyped-def]
    memory = bytearray(ring_bytes(1024))
    create_ring(memory)
    writer, reader = RingWriter(memory), RingReader(memory)
    writer.push(record(b"x" * 8))
    writer.push(record(b"x" * 16))
    reader.drain(1)
    assert header.HEADER_BYTES == 256
    assert OFFSETS == {
        "magic": 0,
        "capacity": 8,
        "slot_bytes": 16,
        "head": 64,
        "rings": 72,
        "waits": 80,
        "tail": 192,
    }
    assert word(memory, 0) == MAGIC_RING
    assert memory[:8] == b"LSring\x00\x01"
    assert word(memory, 8) == 1024
    assert word(memory, 16) == 0
    assert word(memory, 64) == 88
    assert word(memory, 72) == word(memory, 80) == 0
    writer.announce()
    writer.announce(waiting=True)
    assert (word(memory, 72), word(memory, 80)) == (2, 1)
    assert word(memory, 192) == 40
    assert memory[256:288] == record(b"x" * 8)[:32]


def test_head_tail_and_data_are_128_bytes_apart() -> None:
    assert OFFSETS["tail"] - OFFSETS["head"] == 128
    assert header.HEADER_BYTES - OFFSETS["tail"] >= 64
    assert OFFSETS["head"] - OFFSETS["slot_bytes"] >= 8


def test_power_of_two_within() -> None:
    pairs = [(-1, 0), (0, 0), (1, 1), (2, 2), (3, 2), (4096, 4096), (8191, 4096)]
    assert [(n, power_of_two_within(n)) for n, _ in pairs] == pairs


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("magic", 0, "magic is 0x0, expected 0x"),
        ("magic", MAGIC_SLOTS, "magic is"),
        ("slot_bytes", 8, "slot_bytes is 0x8, expected 0x0"),
        ("capacity", 0, "capacity is 0, expected a power of two up to 1024"),
        ("capacity", 1000, "capacity is 1000"),
        ("capacity", 2048, "capacity is 2048"),
        ("capacity", 2**63, "capacity is"),
        ("head", 1032, "head is 1032, expected 0 to 1024"),
        ("head", 12, "head is 12, expected a multiple of 8"),
        ("tail", 2**63, "tail|head"),
    ],
)
@pytest.mark.parametrize("side", [RingReader, RingWriter])
def test_ring_with_a_senseless_header_is_refused_by_both_sides(
    side: type, field: str, value: int, message: str
) -> None:
    memory = bytearray(ring_bytes(1024))
    create_ring(memory)
    struct.pack_into("=Q", memory, OFFSETS[field], value)
    if side is RingWriter and field == "head":
        message = (
            "tail is 0|head is 12"  # A head that its own side finds: the tail is too far back.
        )
    with pytest.raises(RingCorrupt, match=message):
        side(memory)


def test_memory_too_short_for_a_header_is_refused() -> None:
    with pytest.raises(RingCorrupt, match="255 bytes, expected a header of 256"):
        RingReader(bytearray(255))
