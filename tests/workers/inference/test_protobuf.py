"""The wire format, with the onnx package's protobuf as the judge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto

from lockstep.workers.inference.protobuf import (
    BYTES,
    bytes_field,
    encode,
    fields,
    inner,
    number_field,
    numbers,
    text,
)


@given(st.text(max_size=300), st.lists(st.text(max_size=200), max_size=5))
def test_what_is_written_is_what_protobuf_reads(name: str, inputs: list[str]) -> None:
    parts = [bytes_field(1, each.encode()) for each in inputs]
    node = NodeProto.FromString(b"".join(parts) + bytes_field(3, name.encode()))
    assert (node.name, list(node.input)) == (name, inputs)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9), st.text(max_size=50))
def test_what_protobuf_writes_is_what_is_read(dims: list[int], name: str) -> None:
    message = memoryview(TensorProto(dims=dims, name=name).SerializeToString())
    assert [each - 2**64 * (each >> 63) for each in numbers(message, 1)] == dims
    assert text(message, 8) == name
    assert b"".join(each.raw for each in fields(message)) == message


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_number_is_written_as_protobuf_does(value: int) -> None:
    assert number_field(1, value) == TensorProto(dims=[value]).SerializeToString()


@given(st.lists(st.integers(0, 2**64 - 1), max_size=9))
def test_packed_numbers_are_read_as_well(values: list[int]) -> None:
    packed = bytes_field(1, b"".join(encode(value) for value in values))
    assert numbers(memoryview(packed), 1) == tuple(values)


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_an_error_and_never_more_than_is_there(data: bytes) -> None:
    try:
        found = list(fields(memoryview(data)))
    except ValueError:
        return
    assert b"".join(each.raw for each in found) == data


def test_the_last_of_several_names_counts_and_other_wire_types_do_not() -> None:
    message = memoryview(bytes_field(3, b"a") + number_field(3, 5) + bytes_field(3, b"b"))
    assert text(message, 3) == "b"
    assert inner(message, 3) == [b"a", b"b"]
    assert {each.wire for each in fields(message)} == {0, BYTES}


@pytest.mark.parametrize(
    "data", [b"\x0a\x05ab", b"\x0b", b"\x08", b"\x08" + b"\xff" * 11, b"\x09a"]
)
def test_what_is_cut_or_unknown_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        list(fields(memoryview(data)))
