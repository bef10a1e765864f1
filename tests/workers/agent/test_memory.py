"""Guest pointers: checked, paid for, and never followed outside."""

import ctypes

import pytest

from lockstep.engine.errors import ProtocolError
from lockstep.workers.agent.memory import GuestMemory

SIZE = 1000
MAX = 2**32 - 1


class Block:
    """Some bytes that stand for a linear memory."""

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(bytes(range(250)) * 4, SIZE + 8)
        self.base = ctypes.addressof(self._bytes)
        self.size = SIZE


def door() -> tuple[GuestMemory, list[int]]:
    block, paid = Block(), list[int]()
    return GuestMemory(lambda: block, paid.append), paid


GOOD = [(0, 0), (0, 1), (0, SIZE), (SIZE - 1, 1), (SIZE, 0), (999, 1)]
BAD = [(SIZE, 1), (0, SIZE + 1), (SIZE + 1, 0), (MAX, 1), (-1, 1), (-1, 0), (0, -1), (-1, -1)]
BAD += [(500, MAX), (MAX, MAX), (-(2**31), 4), (2**31 - 1, 2**31 - 1), (8, -8)]


@pytest.mark.parametrize(("pointer", "length"), GOOD)
def test_bytes_inside_are_read_and_paid(pointer: int, length: int) -> None:
    memory, paid = door()
    expected = (bytes(range(250)) * 4)[pointer : pointer + length]
    assert memory.read(pointer, length, "x") == expected
    assert paid == [length]


@pytest.mark.parametrize(("pointer", "length"), BAD)
def test_bytes_outside_are_a_protocol_error_before_any_read(pointer: int, length: int) -> None:
    memory, paid = door()
    with pytest.raises(ProtocolError, match=r"what: \d+ bytes at \d+, the memory has 1000"):
        memory.read(pointer, length, "what")
    with pytest.raises(ProtocolError):
        memory.span(pointer, length, "what")
    assert paid == []


def test_writes_are_whole_or_refused() -> None:
    memory, paid = door()
    memory.write(SIZE - 4, b"abcd", "x")
    memory.write_u32(0, 0xDDCCBBAA, "x")
    memory.write_u64(8, 1, "x")
    for pointer in (SIZE - 3, -1, -4, SIZE):
        with pytest.raises(ProtocolError):
            memory.write(pointer, b"wxyz", "x")
    assert memory.read(SIZE - 4, 4, "x") == b"abcd"
    assert memory.read(0, 4, "x") == b"\xaa\xbb\xcc\xdd"
    assert memory.read(8, 8, "x") == b"\1" + bytes(7)
    assert paid == [4, 4, 8, 4, 4, 8]
