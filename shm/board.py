"""Board: the state of a run in a named segment, for observers (`observer`) not to disturb it.

One slot per agent (all written by the supervisor), one of the engine (written by the inference
process), one of the supervisor. One writer per slot, any number of readers, no lock: a reader
that meets a slot in the middle of an update looks again and never takes it torn.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lockstep.shm import segment
from lockstep.shm.cursor import Cursor, fence
from lockstep.shm.segment import Segment

# Board, native byte order:
#
#   0       8         16           24       32    64            128       192       192 + 192 n
#   +-------+---------+------------+--------+- - -+-------------+---------+---- .... ----+
#   | magic | version | size_bytes | agents |     | supervisor  | engine  | agents 0..n-1|
#   +-------+---------+------------+--------+- - -+-------------+---------+---- .... ----+
#
# All four header words are u64. version is written last: 0 means not ready.
#
# A slot begins with its sequence: odd while it is being written, and each update moves it on. The
# writer stores odd, writes, stores even; a reader takes the slot only if it saw the same even
# sequence before and after copying it.
MAGIC = int.from_bytes(b"LSboard\x01", "little")
VERSION = 3
HEADER_BYTES = 64
OFFSETS = {"magic": 0, "version": 8, "size_bytes": 16, "agents": 24}
SUPERVISOR_OFFSET = 64
ENGINE_OFFSET = 128
AGENTS_OFFSET = 192

NAME_BYTES_MAX = 64
AGENTS_MAX = 65536


def _slot(size_bytes: int, **fields: tuple[str, int]) -> np.dtype[Any]:
    return np.dtype(
        {
            "names": ["sequence", *fields],
            "formats": ["<u8", *(kind for kind, _ in fields.values())],
            "offsets": [0, *(offset for _, offset in fields.values())],
            "itemsize": size_bytes,
        }
    )


# pid 0: no process yet. What a state means is for the layers above. start_time: clock ticks since
# boot, as in `identity`. tokens_per_s: of late, when the slot was written; at_us: when that was, in
# microseconds of the system's monotonic clock. mailbox: events that wait for the agent, requests:
# its requests that wait for an answer.
SUPERVISOR = _slot(64, pid=("<i8", 8), start_time=("<u8", 16), state=("<u4", 24))
ENGINE = _slot(
    64,
    pid=("<i8", 8),
    state=("<u4", 16),
    tokens_per_s=("<u4", 20),
    step=("<i8", 24),
    rows=("<u8", 32),
    tickets_waiting=("<u8", 40),
    tokens=("<u8", 48),
    at_us=("<u8", 56),
)
AGENT = _slot(
    192,
    name=(f"S{NAME_BYTES_MAX}", 8),
    index=("<u4", 72),
    state=("<u4", 76),
    pid=("<i8", 80),
    step=("<i8", 88),
    micro=("<u8", 96),
    turns=("<u8", 104),
    fuel=("<u8", 112),
    stall_us=("<u8", 120),
    mailbox=("<u8", 128),
    requests=("<u8", 136),
)

_NAME = struct.Struct(f"<{NAME_BYTES_MAX}s")


def _layouts(dtype: np.dtype[Any]) -> dict[str, tuple[struct.Struct, int]]:
    """How each field is written, and where. By struct: numpy takes ten times as long for one."""
    assert dtype.fields is not None
    found = {}
    for name, (kind, offset, *_) in dtype.fields.items():
        layout = _NAME if kind.kind == "S" else struct.Struct(f"<{_CODES[kind.str]}")
        found[name] = (layout, offset)
    del found["sequence"]
    return found


_CODES = {"<i8": "q", "<u8": "Q", "<u4": "I"}
_FIELDS = {dtype: _layouts(dtype) for dtype in (SUPERVISOR, ENGINE, AGENT)}


def board_bytes(agents: int) -> int:
    """Bytes of a board for so many agents."""
    return AGENTS_OFFSET + agents * AGENT.itemsize


class BoardSlot:
    """The writer of one slot. Keeps all values; an update names only those that change."""

    def __init__(self, memory: memoryview, dtype: np.dtype[Any]) -> None:
        self._sequence = Cursor(memory, 0)
        self._payload = memory[8 : dtype.itemsize]
        self._fields = _FIELDS[dtype]
        self._values = bytes(dtype.itemsize)

    def update(self, **fields: int | str) -> None:
        """Set fields; an observer sees all of them or none.

        Raises:
            ValueError: no such field, or a name beyond 64 bytes of UTF-8 or with a NUL.
            OverflowError: a number that its field cannot hold. The slot is unchanged each time.
        """
        values = bytearray(self._values)  # All that can fail happens before the sequence is odd.
        for name, value in fields.items():
            found = self._fields.get(name)
            if found is None:
                known = ", ".join(self._fields)
                raise ValueError(f"board slot has no field {name!r}, only {known}")
            layout, offset = found
            is_number = not isinstance(value, str) and layout is not _NAME
            packed: object = value if is_number else _name(name, layout, value)
            try:
                layout.pack_into(values, offset, packed)
            except struct.error:
                raise OverflowError(f"board field {name}: {value!r} is out of bounds") from None
        # From memory, not from a private count: the inference process may be the successor of one
        # that was killed here, perhaps at an odd number, and must not go back.
        writing = (self._sequence.load() + 1) | 1
        self._sequence.store(writing)
        fence()
        self._payload[:] = memoryview(values)[8:]
        self._sequence.store(writing + 1)
        self._values = bytes(values)

    def release(self) -> None:
        """Give the memory back."""
        self._sequence.release()
        self._payload.release()


def _name(field: str, layout: struct.Struct, value: int | str) -> bytes:
    """A text as its field takes it."""
    if layout is not _NAME or not isinstance(value, str):
        raise ValueError(f"board field {field} cannot be {value!r}")
    text = value.encode()
    if b"\0" in text or len(text) > NAME_BYTES_MAX:
        raise ValueError(
            f"board field {field}: {len(text)} bytes, expected up to {NAME_BYTES_MAX} without NUL"
        )
    return text


class Board:
    """The writing side, created by the supervisor; the inference process inherits or attaches it.

    Attributes:
        supervisor: Written by the supervisor only.
        engine: Written by the inference process only, while there is one.
    """

    def __init__(self, whole: Segment, agents: int) -> None:
        self._segment = whole
        memory = whole.memory
        self.supervisor = BoardSlot(memory[SUPERVISOR_OFFSET:ENGINE_OFFSET], SUPERVISOR)
        self.engine = BoardSlot(memory[ENGINE_OFFSET:AGENTS_OFFSET], ENGINE)
        starts = range(AGENTS_OFFSET, board_bytes(agents), AGENT.itemsize)
        self._agents = [BoardSlot(memory[at : at + AGENT.itemsize], AGENT) for at in starts]

    @classmethod
    def create(
        cls, name: str, agents: int, make: Callable[[str, int], Segment] = segment.create
    ) -> "Board":
        """A board under ``name`` (`identity.next_name`), all zero but the agents' indices.

        Args:
            name: Under which observers find it.
            agents: How many.
            make: Makes its segment, of a name and a size.

        Raises:
            ValueError: a number of agents beyond 0 to 65,536.
            FileExistsError: the name is taken.
            SegmentFull: no room in /dev/shm; nothing is left behind.
        """
        if not 0 <= agents <= AGENTS_MAX:
            raise ValueError(f"board of {agents} agents, expected 0 to {AGENTS_MAX}")
        size = board_bytes(agents)
        whole = make(name, size)
        board = cls(whole, agents)
        for index, slot in enumerate(board._agents):
            slot.update(index=index)
        words = {"magic": MAGIC, "size_bytes": size, "agents": agents, "version": VERSION}
        for field, value in words.items():
            word = Cursor(whole.memory, OFFSETS[field])
            word.store(value)
            word.release()
        return board

    @classmethod
    def attach(cls, name: str) -> "Board":
        """The writing side of a board that its creator's process made, in a fresh child of it.

        Raises:
            FileNotFoundError, PermissionError: as `segment.attach`.
        """
        whole = segment.attach(name, writable=True)
        return cls(whole, (len(whole.memory) - AGENTS_OFFSET) // AGENT.itemsize)

    def __reduce__(self) -> tuple[object, ...]:
        return Board.attach, (self.name,)

    @property
    def name(self) -> str:
        """What `BoardReader.attach` takes."""
        return self._segment.name

    def agent(self, index: int) -> BoardSlot:
        """The slot of one agent; written by the supervisor only."""
        return self._agents[index]

    def seal(self) -> None:
        """From now on a forked child does not inherit the board: agents have no use for it."""
        self._segment.inherit(False, 0, board_bytes(len(self._agents)))

    @contextmanager
    def lend(self) -> Iterator[None]:
        """Let a child that is forked inside the ``with`` inherit the board."""
        self._segment.inherit(True, 0, board_bytes(len(self._agents)))
        try:
            yield
        finally:
            self.seal()

    def descriptors(self) -> tuple[int, ...]:
        """Placeholders that a child may close, if it leaves by ``os._exit`` (`Segment`)."""
        return self._segment.descriptors()

    def close(self) -> None:
        """Remove the name (in its creator only) and unmap. Idempotent. Observers keep theirs."""
        self._segment.unlink()
        for slot in (self.supervisor, self.engine, *self._agents):
            slot.release()
        self._segment.close()
