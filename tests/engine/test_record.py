"""Records: layout, roundtrip, and bytes from untrusted peers."""

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine import record as records
from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import (
    ALIGN,
    HEADER,
    HEADER_BYTES,
    OFFSETS,
    PEER_NONE,
    Kind,
    Outcome,
    Record,
    TurnEnd,
    aligned,
    decode,
    decode_all,
    decode_at,
    decode_end,
    encode,
    encode_end,
    encode_record,
    encode_wake,
)

U16, U32, U64 = 2**16 - 1, 2**32 - 1, 2**64 - 1
RECORDS = st.builds(
    Record,
    st.integers(0, U16),
    st.integers(0, U16),
    st.integers(0, U64),
    st.integers(0, U64),
    st.integers(0, U32),
    st.binary(max_size=40),
)
ABI = Path(__file__).parents[2] / "docs" / "abi.md"


def test_each_field_lies_at_its_offset() -> None:
    data = encode(0x1122, b"abc", flags=0x3344, id=2**63 + 5, item=2**62 + 6, peer=0x55667788)
    fields = {
        "size": ("<I", 35),
        "kind": ("<H", 0x1122),
        "flags": ("<H", 0x3344),
        "id": ("<Q", 2**63 + 5),
        "item": ("<Q", 2**62 + 6),
        "peer": ("<I", 0x55667788),
        "reserved": ("<I", 0),
    }
    assert fields.keys() == OFFSETS.keys()
    for name, (code, value) in fields.items():
        assert struct.unpack_from(code, data, OFFSETS[name]) == (value,), name
    assert HEADER.size == HEADER_BYTES == 32
    assert data[32:] == b"abc" + bytes(5)


def test_the_kinds_of_the_interface_document_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", ABI.read_text(), re.M)
    reserved = re.findall(r"([A-Z_]+) \((\d+)\)", ABI.read_text().split("are reserved")[0])
    named = {name: int(number) for name, number in rows + reserved if name in Kind.__members__}
    assert named == {kind.name: kind.value for kind in Kind if kind < Kind.END}


def test_guest_kinds_are_those_from_the_guest() -> None:
    assert frozenset(k for k in Kind if 32 <= k < 64) == records.GUEST_KINDS


@given(st.lists(RECORDS, max_size=5))
def test_records_survive_encoding_and_decoding(given_records: list[Record]) -> None:
    data = b"".join(encode_record(record) for record in given_records)
    assert len(data) % ALIGN == 0
    assert list(decode(data)) == decode_all(data) == given_records


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_records_or_a_protocol_error(data: bytes) -> None:
    decode_or_refuse(data)


@given(st.lists(RECORDS, min_size=1, max_size=3), st.data())
def test_one_changed_byte_is_decoded_or_refused_within_the_buffer(
    given_records: list[Record], data: st.DataObject
) -> None:
    whole = bytearray(b"".join(encode_record(record) for record in given_records))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    decode_or_refuse(bytes(whole))


def decode_or_refuse(data: bytes) -> None:
    """Decoding consumes the buffer exactly, reads nothing behind it, or refuses."""
    try:
        found = list(decode(data))
    except ProtocolError:
        with pytest.raises(ProtocolError):
            decode_all(data)
        return
    assert decode_all(data) == found
    assert b"".join(encode_record(record) for record in found) == data
    assert sum(HEADER_BYTES + aligned(len(record.payload)) for record in found) == len(data)


@given(RECORDS, st.binary(max_size=16))
def test_bytes_behind_a_record_are_never_read(record: Record, behind: bytes) -> None:
    data = encode_record(record)
    assert decode_at(data + behind, 0) == (record, len(data))


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_record_cut_anywhere_is_refused_with_its_offset(cut: int) -> None:
    first = encode(Kind.LOG)
    data = first + encode(Kind.SEND, b"12345678")
    with pytest.raises(ProtocolError, match="record at byte 32: "):
        list(decode(data[: len(first) + 40 - cut]))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 31, "record at byte 0: size 31, expected 32 to 40 with padding"),
        (0, 41, "record at byte 0: size 41, expected 32 to 40 with padding"),
        (0, 2**32 - 1, "record at byte 0: size 4294967295, expected 32 to 40 with padding"),
        (28, 7, "record at byte 0: reserved field is 7, expected 0"),
        (36, 1, "record at byte 0: padding after 35 bytes is not zero"),
    ],
)
def test_a_bad_field_is_named(offset: int, value: int, message: str) -> None:
    data = bytearray(encode(Kind.SEND, b"abc"))
    struct.pack_into("<I", data, offset, value)
    with pytest.raises(ProtocolError, match=f"^{re.escape(message)}$"):
        list(decode(bytes(data)))


@pytest.mark.interpreted
def test_a_payload_is_a_copy_of_the_buffer() -> None:
    buffer = bytearray(encode(Kind.SEND, b"abcdefgh"))
    record, _ = decode_at(buffer, 0)  # type: ignore[arg-type]
    buffer[32:] = bytes(8)
    assert record.payload == b"abcdefgh"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_end_of_a_turn_survives_encoding(outcome: Outcome) -> None:
    end = TurnEnd(7, outcome, 12345, 3, bytes(range(32)), "why: ü")
    (record,) = decode(encode_end(end))
    assert record.kind == Kind.END
    assert decode_end(record) == end


@pytest.mark.parametrize(("payload", "outcome"), [(bytes(31), 0), (bytes(32), 7)])
def test_a_malformed_end_of_turn_is_refused(payload: bytes, outcome: int) -> None:
    record = Record(Kind.END, outcome, 4, 0, 0, payload)
    with pytest.raises(ProtocolError, match=f"END of turn 4: outcome {outcome}, malformed"):
        decode_end(record)


def test_a_reason_that_is_not_utf8_is_shown_with_replacements() -> None:
    record = Record(Kind.END, 2, 0, 0, 0, bytes(32) + b"a\xff")
    assert decode_end(record).reason == "a\ufffd"


def test_wake_announces_the_events_behind_it() -> None:
    events = encode(Kind.CLOSE) + encode(Kind.TIMER, id=1)
    wake, *rest = decode(encode_wake(5, 6, 7, events, 2))
    assert wake[:5] == (Kind.WAKE, 0, 5, 6, 7)
    assert struct.unpack("<QQ", wake.payload) == (2, 64)
    assert [record.kind for record in rest] == [Kind.CLOSE, Kind.TIMER]


def test_nobody_is_the_greatest_peer() -> None:
    assert PEER_NONE == U32
