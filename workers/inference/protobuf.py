"""Protobuf wire format, as far as editing an ONNX file needs it: reading fields, writing them.

Nothing is parsed that is not asked for, so what an edit does not touch is copied as the bytes it
was, fields that nobody here knows included. `graph.read_graph` has walked the whole file before;
what is malformed all the same is a ValueError, never a guess.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIDTHS = {FIXED64: 8, FIXED32: 4}
VARINT_BITS_MAX = 70  # Ten bytes.


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: Of the field.
        wire: Its wire type.
        value: Of a VARINT; else 0.
        body: What is in it, without key and length; empty for a VARINT.
        raw: All of it, key and length included, to be copied as it is.
    """

    number: int
    wire: int
    value: int
    body: memoryview
    raw: memoryview


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message in order; views of it, nothing is copied.

    Raises:
        ValueError: it is malformed.
    """
    at, stop = 0, len(message)
    while at < stop:
        start = at
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if not number or key >> 32:  # Protobuf would drop the high bits and see another field.
            raise ValueError(f"key {key}")
        value, size = 0, 0
        if wire == VARINT:
            value, at = _varint(message, at)
        elif wire == BYTES:
            size, at = _varint(message, at)
        elif wire in WIDTHS:
            size = WIDTHS[wire]
        else:
            raise ValueError(f"wire type {wire}")
        if size > stop - at:
            raise ValueError(f"{size} bytes, {stop - at} are left")
        body = message[at : at + size]
        at += size
        yield Field(number, wire, value, body, message[start:at])


def inner(message: memoryview, number: int) -> list[memoryview]:
    """The bodies of all BYTES fields of a number. Raises ValueError as `fields`."""
    return [each.body for each in fields(message) if each.number == number and each.wire == BYTES]


def text(message: memoryview, number: int) -> str:
    """A string field: the last one counts, as in protobuf; empty where there is none.

    Raises:
        ValueError: malformed, or not UTF-8.
    """
    found = inner(message, number)
    return bytes(found[-1]).decode() if found else ""


def numbers(message: memoryview, number: int) -> tuple[int, ...]:
    """A repeated integer field, packed or not. Raises ValueError as `fields`."""
    found: list[int] = []
    for each in fields(message):
        if each.number == number and each.wire == VARINT:
            found.append(each.value)
        elif each.number == number and each.wire == BYTES:
            at = 0
            while at < len(each.body):
                value, at = _varint(each.body, at)
                found.append(value)
    return tuple(found)


def number_field(number: int, value: int) -> bytes:
    """An integer field; negative ones take ten bytes, as protobuf's int64 does."""
    return encode(number << 3 | VARINT) + encode(value & 0xFFFF_FFFF_FFFF_FFFF)


def bytes_field(number: int, *parts: bytes | memoryview) -> bytes:
    """A field with these bytes, one behind the other."""
    return b"".join(field_parts(number, parts))


def field_parts(number: int, parts: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """As `bytes_field`, in pieces: what is large is copied once, by whoever joins them."""
    yield encode(number << 3 | BYTES) + encode(sum(len(part) for part in parts))
    yield from parts


def encode(value: int) -> bytes:
    """A varint of a number from 0."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, VARINT_BITS_MAX, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise ValueError(f"a number at byte {at} does not end")
