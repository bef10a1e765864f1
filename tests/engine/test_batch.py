"""Batch: what the decoder finds record by record, found at once; refused in the same words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.batch import HEAD, Batch
from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import (
    HEADER_BYTES,
    OFFSETS,
    PEER_NONE,
    Kind,
    Record,
    decode,
    encode,
    encode_record,
)

U16, U32, U64 = 2**16 - 1, 2**32 - 1, 2**64 - 1


def records(payload: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[Record]]:
    """Lists of records with such payloads."""
    fields = (st.integers(0, U16), st.integers(0, U16), st.integers(0, U64), st.integers(0, U64))
    return st.lists(st.builds(Record, *fields, st.integers(0, U32), payload), max_size=12)


# One size, sizes with one stride (17 to 24 bytes), and any.
MANY = st.one_of(
    records(st.binary(min_size=13, max_size=13)),
    records(st.binary(min_size=17, max_size=24)),
    records(st.binary(max_size=50)),
)


def joined(parts: list[Record]) -> bytes:
    """Their bytes, one behind the other."""
    return b"".join(map(encode_record, parts))


def verdict(data: bytes) -> list[Record] | str:
    """What the decoder makes of the bytes: records, or the text of its error."""
    try:
        return list(decode(data))
    except ProtocolError as error:
        return str(error)


def batch_verdict(data: bytes) -> list[Record] | str:
    """The same of a batch, from its columns."""
    try:
        batch = Batch(data)
    except ProtocolError as error:
        return str(error)
    return [
        Record(*(int(head[name]) for name in ("kind", "flags", "id", "item", "peer")),
               data[start + HEADER_BYTES : start + int(head["size"])])
        for head, start in zip(batch.heads, batch.starts.tolist(), strict=True)
    ]  # fmt: skip


def test_the_columns_are_the_fields_of_the_header() -> None:
    assert HEAD.itemsize == HEADER_BYTES
    assert {name: HEAD.fields[name][1] for name in HEAD.names or ()} == OFFSETS  # type: ignore[index]


@given(MANY)
def test_a_batch_has_the_records_that_the_decoder_finds(given_records: list[Record]) -> None:
    data = joined(given_records)
    batch = Batch(data)
    assert batch_verdict(data) == given_records == list(batch)
    assert batch.kinds().tolist() == [record.kind for record in given_records]
    assert [batch.record(n) for n in range(len(batch))] == given_records
    assert b"".join(batch.bytes_of(n) for n in range(len(batch))) == data
    assert batch.starts.tolist() == [
        len(joined(given_records[:n])) for n in range(len(given_records))
    ]


@given(MANY, st.data())
def test_damaged_bytes_are_refused_as_by_the_decoder(
    given_records: list[Record], chosen: st.DataObject
) -> None:
    data = bytearray(joined(given_records))
    for _ in range(chosen.draw(st.integers(0, 3))):
        if data:
            at = chosen.draw(st.integers(0, len(data) - 1))
            data[at] = chosen.draw(st.sampled_from([0, 1, 24, 31, 33, 40, 255]))
    cut = bytes(data[: chosen.draw(st.integers(0, len(data)))])
    assert batch_verdict(cut) == verdict(cut)
    assert batch_verdict(bytes(data)) == verdict(bytes(data))


@given(st.binary(max_size=200))
def test_any_bytes_are_judged_as_by_the_decoder(data: bytes) -> None:
    assert batch_verdict(data) == verdict(data)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("sizes", [[9], [9, 10], [9, 30]])
@pytest.mark.parametrize(
    ("at", "value", "text"),
    [
        (OFFSETS["size"], 31, "size 31, expected 32"),
        (OFFSETS["size"] + 3, 255, "size 4278190121, expected 32"),
        (OFFSETS["reserved"], 1, "reserved field is 1"),
        (HEADER_BYTES + 9, 7, "padding after 41 bytes is not zero"),
        (HEADER_BYTES + 15, 7, "padding after 41 bytes is not zero"),
    ],
)
def test_each_damage_is_found_in_the_first_and_in_the_last_record(
    count: int, sizes: list[int], at: int, value: int, text: str
) -> None:
    payloads = [b"x" * sizes[n % len(sizes)] for n in range(count)]
    middle = b"".join(encode(Kind.SEND, payload) for payload in payloads)
    for data, base in (
        (bytearray(encode(Kind.SEND, b"x" * 9) + middle), 0),
        (bytearray(middle + encode(Kind.SEND, b"x" * 9)), len(middle)),
    ):
        data[base + at] = value
        with pytest.raises(ProtocolError, match=text) as raised:
            Batch(bytes(data))
        assert str(raised.value) == verdict(bytes(data))


@given(MANY, st.data())
def test_gathered_records_come_in_the_order_asked_for(
    given_records: list[Record], chosen: st.DataObject
) -> None:
    batch = Batch(joined(given_records))
    order = chosen.draw(st.lists(st.integers(0, len(batch) - 1))) if len(batch) else []
    wanted = joined([given_records[n] for n in order])
    assert batch.gather(np.array(order, np.int64)) == wanted
    mask = np.array([n in order for n in range(len(batch))], bool)
    assert list(batch.select(mask)) == [r for n, r in enumerate(given_records) if n in order]


@given(MANY, st.data())
def test_rewriting_changes_the_named_fields_of_the_chosen_records_only(
    given_records: list[Record], chosen: st.DataObject
) -> None:
    data = joined(given_records)
    batch = Batch(data)
    picked = chosen.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch)))
    peers = chosen.draw(st.lists(st.integers(0, U32), min_size=len(batch), max_size=len(batch)))
    mask = np.array(picked, bool)
    changed = batch.rewrite(kind=Kind.MESSAGE, peer=np.array(peers, np.uint32)[mask], where=mask)
    assert list(decode(changed)) == [
        record._replace(kind=Kind.MESSAGE, peer=peer) if hit else record
        for record, hit, peer in zip(given_records, picked, peers, strict=True)
    ]
    assert batch.data == data and batch.rewrite() == data
    everywhere = list(decode(batch.rewrite(flags=4, peer=PEER_NONE)))
    assert [(r.flags, r.peer) for r in everywhere] == [(4, PEER_NONE)] * len(batch)


def test_equal_sizes_are_laid_out_as_rows_and_others_are_not() -> None:
    even = b"".join(encode(Kind.SEND, bytes(n)) for n in (57, 64, 60))
    assert Batch(even).stride == 96
    assert Batch(even + encode(Kind.SEND)).stride == 0
