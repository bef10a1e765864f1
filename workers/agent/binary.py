"""A module's binary form: its sections, and the instructions of its functions passed over.

Just enough to find out what a module can do, without running or compiling it. The decoder knows
what the engine's settings allow and refuses the rest: whoever asks must never get a guess.
"""

from collections.abc import Iterator
from typing import NamedTuple

HEAD_BYTES = 8
TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START = 1, 2, 3, 4, 5, 6, 7, 8
CODE, DATA_COUNT = 10, 12
SECTION_LAST = DATA_COUNT
NUMBER_BYTES_MAX = 10  # A signed number of 64 bits; the longest there is.

# Opcodes behind a prefix are counted from here on.
BULK, VECTOR = 0xFC, 0xFD
BULK_FIRST, VECTOR_FIRST = BULK << 16, VECTOR << 16

TABLE_SET = 0x26
DATA_DROP = BULK_FIRST | 9
TABLE_INIT = BULK_FIRST | 12
ELEM_DROP = BULK_FIRST | 13
TABLE_COPY = BULK_FIRST | 14
TABLE_GROW = BULK_FIRST | 15
TABLE_FILL = BULK_FIRST | 17

# i32, i64, f32, f64, v128: plain bits; funcref, externref: not.
PLAIN_TYPES = frozenset((0x7F, 0x7E, 0x7D, 0x7C, 0x7B))
REFERENCE_TYPES = frozenset((0x70, 0x6F))

_BLOCKS = frozenset((0x02, 0x03, 0x04))  # block, loop, if
_END = 0x0B

# Numbers between those of vector instructions that nothing has.
_VECTOR_UNASSIGNED = frozenset(
    bytes.fromhex("9aa2a5a6afb0b2b3b4bbc2c5c6cfd0d2d3d4e2ee"),
)


def _table() -> dict[int, str]:
    """What follows each opcode: "n" a number; "1" "4" "8" "x" so many bytes (x: 16); "v" as many
    numbers as a number says, "t" (br_table) one more."""
    ranges = [
        (0x00, 0x01, ""), (0x02, 0x04, "n"), (0x05, 0x05, ""), (0x0B, 0x0B, ""),
        (0x0C, 0x0D, "n"), (0x0E, 0x0E, "t"), (0x0F, 0x0F, ""), (0x10, 0x10, "n"),
        (0x11, 0x11, "nn"), (0x1A, 0x1B, ""), (0x1C, 0x1C, "v"), (0x20, 0x26, "n"),
        (0x28, 0x3E, "nn"), (0x3F, 0x42, "n"), (0x43, 0x43, "4"), (0x44, 0x44, "8"),
        (0x45, 0xC4, ""), (0xD0, 0xD0, "n"), (0xD1, 0xD1, ""), (0xD2, 0xD2, "n"),
    ]  # fmt: skip
    bulk = ["", "", "", "", "", "", "", "", "nn", "n", "nn", "n", "nn", "n", "nn", "n", "n", "n"]
    ranges += [(BULK_FIRST | n, BULK_FIRST | n, what) for n, what in enumerate(bulk)]
    vector = [
        (0, 11, "nn"), (12, 13, "x"), (14, 20, ""), (21, 34, "1"), (35, 83, ""),
        (84, 91, "nn1"), (92, 93, "nn"), (94, 255, ""), (256, 275, ""),
    ]  # fmt: skip
    ranges += [(VECTOR_FIRST | first, VECTOR_FIRST | last, what) for first, last, what in vector]
    found = {code: what for first, last, what in ranges for code in range(first, last + 1)}
    return {code: found[code] for code in found if code - VECTOR_FIRST not in _VECTOR_UNASSIGNED}


_FOLLOWS = _table()
_BYTES = {"1": 1, "4": 4, "8": 8, "x": 16}


class Unreadable(Exception):
    """These bytes are not what this decoder knows. Its text says what and where."""


class Section(NamedTuple):
    """One section: its number, where its head begins, and its content."""

    number: int
    head: int
    start: int
    end: int


class Reader:
    """Reads on from ``at``, never past ``end``.

    Args:
        data: The module.
        at: Next byte.
        end: First byte that is not to be read.
    """

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end

    def byte(self) -> int:
        """The next byte."""
        at = self.skip(1)
        return self.data[at]

    def skip(self, count: int) -> int:
        """Pass over ``count`` bytes; where they began.

        Raises:
            Unreadable: there are not so many.
        """
        at = self.at
        if at + count > self.end:
            raise Unreadable(f"cut off at byte {self.end}")
        self.at = at + count
        return at

    def number(self) -> int:
        """A LEB128 number, read as unsigned; of a signed one only its length means anything."""
        value = shift = 0
        while shift < 7 * NUMBER_BYTES_MAX:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise Unreadable(f"a number of more than {NUMBER_BYTES_MAX} bytes before byte {self.at}")

    def name(self) -> bytes:
        """A vector of bytes."""
        count = self.number()
        at = self.skip(count)
        return self.data[at : at + count]

    def value_type(self) -> int:
        """A type of values, one byte.

        Raises:
            Unreadable: it is none that is known.
        """
        found = self.byte()
        if found not in PLAIN_TYPES | REFERENCE_TYPES:
            raise Unreadable(f"type {found:#x} at byte {self.at - 1} is not known")
        return found

    def expression(self, met: set[int]) -> None:
        """Pass over instructions up to the ``end`` that closes them.

        Args:
            met: Every opcode that was met is added.

        Raises:
            Unreadable: an opcode is not known, or they do not end.
        """
        depth = 1
        while depth:
            code = self.byte()
            if code in (BULK, VECTOR):
                code = code << 16 | self.number()
            follows = _FOLLOWS.get(code)
            if follows is None:
                raise Unreadable(f"instruction {code:#x} before byte {self.at} is not known")
            met.add(code)
            if code in _BLOCKS:
                depth += 1
            elif code == _END:
                depth -= 1
            for what in follows:
                self._pass(what)

    def _pass(self, what: str) -> None:
        if what == "n":
            self.number()
        elif what in "vt":
            for _ in range(self.number() + (what == "t")):
                self.number()
        else:
            self.skip(_BYTES[what])


def sections(wasm: bytes) -> list[Section]:
    """All sections in their order, custom ones (number 0) included.

    Raises:
        Unreadable: a section is cut off, or of a kind that is not known.
    """
    found = []
    reader = Reader(wasm, HEAD_BYTES, len(wasm))
    while reader.at < reader.end:
        head, number, size = reader.at, reader.byte(), reader.number()
        if number > SECTION_LAST:
            raise Unreadable(f"section {number} at byte {head} is not known")
        start = reader.skip(size)
        found.append(Section(number, head, start, start + size))
    return found


def bodies(wasm: bytes, code: Section) -> Iterator[tuple[int, int]]:
    """Start and end of each function's body in the code section.

    Raises:
        Unreadable: the section is not exactly its bodies.
    """
    reader = Reader(wasm, code.start, code.end)
    for _ in range(reader.number()):
        size = reader.number()
        start = reader.skip(size)
        yield start, start + size
    if reader.at != reader.end:
        raise Unreadable(f"{reader.end - reader.at} bytes behind the last function")


def opcodes(wasm: bytes, start: int, end: int) -> set[int]:
    """Opcodes in one function's body.

    Raises:
        Unreadable: an opcode is not known, or the body does not end with its last ``end``.
    """
    reader, met = Reader(wasm, start, end), set[int]()
    for _ in range(reader.number()):  # Groups of locals: how many, of which type.
        reader.number()
        reader.value_type()
    reader.expression(met)
    if reader.at != end:
        raise Unreadable(f"{end - reader.at} bytes behind the end of a function at byte {start}")
    return met


def encode_number(value: int) -> bytes:
    """A whole number from 0 as LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
