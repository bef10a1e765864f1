"""The one door to guest memory: every pointer of a guest is checked and paid for here.

Pointers arrive as signed 32-bit numbers; wasmtime's own ``Memory.read`` would wrap a negative one
and cut a read past the end. Here both are protocol errors, found before a byte is touched. Each
byte that crosses costs fuel, so that moving data is work like any other.
"""

import ctypes
import struct
from collections.abc import Callable
from typing import Any, Protocol

from lockstep.engine.errors import ProtocolError

_MASK = 0xFFFF_FFFF
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
# All that 32 bits can address, so that no size has to be known; most of it is not there.
_Reach = ctypes.c_char * (1 << 32)


class Linear(Protocol):
    """Where guest memory lies now. ``base`` never changes, ``size`` only grows."""

    base: int
    size: int


def unsigned(value: int) -> int:
    """An ``i32`` as wasmtime hands it over, read as unsigned."""
    return value & _MASK


class GuestMemory:
    """Checked reads and writes of one linear memory.

    Args:
        find: Gives the memory; asked at the first access, as it is made after the imports.
        charge: Takes the fuel for a number of bytes, or raises when there is not enough.

    Attributes:
        found: The memory, after the first access.
        bytes: It and all that 32 bits can address, for slices that were checked: bytes of it.
        view: The same, to write to.
    """

    def __init__(self, find: Callable[[], Linear], charge: Callable[[int], None]) -> None:
        self._find = find
        self.found: Linear | None = None
        self._charge = charge
        self.bytes: Any = None
        self.view = memoryview(b"")

    def span(self, pointer: int, length: int, what: str) -> tuple[int, int]:
        """Start and length of ``length`` bytes at ``pointer``, both unsigned and inside.

        Raises:
            ProtocolError: the bytes are not all inside the memory; ``what`` names them.
        """
        start, count = unsigned(pointer), unsigned(length)
        self._address(start, count, what)
        return start, count

    def read(self, pointer: int, length: int, what: str) -> bytes:
        """A copy of ``length`` bytes at ``pointer``. Errors as `span`."""
        count = unsigned(length)
        address = self._address(unsigned(pointer), count, what)
        self._charge(count)
        return ctypes.string_at(address, count)

    def write(self, pointer: int, data: bytes, what: str) -> None:
        """Write all of ``data`` at ``pointer``. Errors as `span`."""
        address = self._address(unsigned(pointer), len(data), what)
        self._charge(len(data))
        ctypes.memmove(address, data, len(data))

    def write_u32(self, pointer: int, value: int, what: str) -> None:
        """Write one little-endian u32."""
        self.write(pointer, _U32.pack(value), what)

    def write_u64(self, pointer: int, value: int, what: str) -> None:
        """Write one little-endian u64."""
        self.write(pointer, _U64.pack(value), what)

    def _address(self, start: int, count: int, what: str) -> int:
        memory = self.found
        if memory is None:
            memory = self.found = self._find()
            self.bytes = _Reach.from_address(memory.base)
            self.view = memoryview(self.bytes).cast("B")
        # Python's integers do not overflow: start + count is the true end.
        if start + count > memory.size:
            raise ProtocolError(f"{what}: {count} bytes at {start}, the memory has {memory.size}")
        return memory.base + start
