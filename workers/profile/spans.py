"""Spans: what one process did and when, written as fixed-size records to a file of its own.

The file is mapped and its room is taken beforehand: a record is a few stores into memory, there is
nothing to flush, and what was written stays when the process is killed. A disk without room ends
the recording, never the process: no store can meet a page that there is no room for.
"""

import mmap
import os
import struct
import time
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

from lockstep.workers.profile.place import Place

# A track, native little-endian: one page of header, then records without a gap. One writer.
#
#   header   magic, role, index, pid, began_ns, stopped_ns, state, record bytes, name (UTF-8, zeros)
#   record   0       8      16     24     32      36     40
#            +-------+------+------+------+-------+------+
#            | start | end  | a    | b    | c u32 | kind |
#            +-------+------+------+------+-------+------+
#
# Times are nanoseconds of CLOCK_MONOTONIC, one clock for all processes. The kind is stored last and
# is never 0: so the first record without one is the end, also of a process that was killed in it.
MAGIC = b"LSTRACK1"
HEADER = struct.Struct("<8sIIQQQII64s")
HEADER_BYTES = 4096
STOPPED = struct.Struct("<QI")  # stopped_ns and state, at `STOPPED_AT`.
STOPPED_AT = 32
RECORD = struct.Struct("<QQQQII")
RECORD_BYTES = RECORD.size
_pack_into = RECORD.pack_into
SUFFIX = ".spans"

CHUNK_BYTES_MIN = 20_480  # The least that is whole pages and whole records.
CHUNK_BYTES_MAX = CHUNK_BYTES_MIN << 6
FREE_BYTES_MIN = 64 << 20  # That the run itself may need: with less, nothing more is recorded.
NAME_BYTES = 64
# MADV_POPULATE_WRITE. The first store into a page of a file asks its file system, which may make it
# wait for somebody else's commit: so all pages are asked for at once, with the chunk.
POPULATE_WRITE = 23

now = time.monotonic_ns


class Role(IntEnum):
    """What a process is."""

    SUPERVISOR = 1
    INFERENCE = 2
    AGENT = 3
    TOOLS = 4
    SYNC = 5


class State(IntEnum):
    """How far a track goes."""

    OPEN = 0  # As far as its process did.
    LIMIT = 1  # As far as its limit.
    NO_ROOM = 2  # As far as the disk had room.


class Kind(IntEnum):
    """What a record is of. ``a``, ``b``, ``c`` are 0 where nothing is said of them."""

    # Of an agent.
    START = 1  # From its fork until it is ready. Of the supervisor: forking all of them.
    TURN = 2  # Events in hand until records sent; a: its number, b: ns until they were in the ring.
    LEFT = 3  # It ends by itself; b: ns of CPU time.
    # Of the supervisor.
    PREPARE = 10  # From its start until the first fork of an agent.
    PASS = 11  # Of its loop; a: ns taking in, b: ns deciding; in the rest it was done.
    JOURNAL = 12  # A write; a: bytes.
    HELD = 13  # The model was held back; a: the step that waited, c: for whom + 1; 0: for nobody.
    ASKED = 14  # A ticket was issued; a: its number, c: the agent.
    COUNTED = 15  # a: messages so far, b: events that wait for agents, c: requests open.
    CLOSE = 16  # From the end of the run to the end of the process.
    USED = 17  # By process a: b: ns of CPU time, c: reads and writes.
    # Of the inference process.
    LOADING = 30  # From its fork until it serves.
    WAIT = 31  # a: rows, b: tickets that wait, c: 1: it has work that it may not do yet.
    STEP = (
        32  # Tickets taken until it is reported; a: its number, b: rows << 32 | waiting, c: tokens.
    )
    PREFILL = 33  # A chunk; a: the model, b: tokens.
    DECODE = 34  # A model's rows; a: the model, b: times that the weights are read, c: rows.
    SAMPLE = 35  # c: rows.
    COPY = 36  # Keys and values from slot to slot; c: copies.
    CALL = 37  # Of a model that is no decoder; a: the ticket.
    TOKEN = 38  # There is one; a: its ticket.
    ENDED = 39  # A ticket; a: its number, b: tokens of its prompt, c: its status.
    WEIGHTS = 40  # a: the model, b: bytes of its files, c: threads of an operator.
    TAKE = 41  # Tickets taken, and nothing to do yet.
    # Of the others.
    TOOL = 50  # A call, from when it came; a: its number, c: the tool.
    SYNC = 51  # c: 1: of names.


class Spans:
    """The track of this process, from the moment on that it is made.

    Args:
        place: Where the tracks are. As long as that is not known records are kept in memory.
        role: Of the process.
        index: Of the agent; else 0.
        name: For people.
        bytes_max: Of records; then no more are written.
        free_bytes_min: Of the disk; likewise.

    Attributes:
        began_ns: When it was made.
    """

    __slots__ = (
        *("_at", "_bytes", "_bytes_max", "_chunk", "_descriptor", "_end", "_free_bytes_min"),
        *("_head", "_memory", "_place", "_state", "began_ns"),
    )

    def __init__(
        self,
        place: Place,
        role: Role,
        index: int,
        name: str,
        bytes_max: int,
        free_bytes_min: int = FREE_BYTES_MIN,
    ) -> None:
        self._place = place
        self._bytes_max, self._free_bytes_min = bytes_max, free_bytes_min
        self.began_ns = now()
        self._state = State.OPEN
        self._descriptor = -1
        self._bytes = 0  # Of records that the file has room for.
        self._chunk = _whole(min(CHUNK_BYTES_MIN, bytes_max))
        self._memory: bytearray | mmap.mmap = bytearray(self._chunk)
        self._at, self._end = 0, self._chunk
        text = name.encode()[:NAME_BYTES]
        self._head = (MAGIC, role, index, os.getpid(), self.began_ns, 0, 0, RECORD_BYTES, text)

    def add(self, kind: int, start: int, end: int, a: int = 0, b: int = 0, c: int = 0) -> None:
        """Write a record; nothing, when there is no room any more. Raises nothing."""
        at = self._at
        if at == self._end:
            if not self._more():
                return
            at = self._at
        _pack_into(self._memory, at, start, end, a, b, c, kind)
        self._at = at + RECORD_BYTES

    def open(self) -> None:
        """Begin the file, if its place is known by now. Idempotent; raises nothing."""
        if self._descriptor >= 0 or self._state:
            return
        folder = self._place.path
        if folder is None:
            return
        role, index = self._head[1:3]
        path = folder / f"{Role(role).name.lower()}-{index}-{self.began_ns}{SUFFIX}"
        kept, size = bytes(self._memory), self._at
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path, flags, 0o600)
            self._take(HEADER_BYTES + self._chunk)
            os.pwrite(self._descriptor, HEADER.pack(*self._head), 0)
            self._map()
        except OSError:
            self._undo(path)
            return
        self._memory[:size] = kept[:size]
        self._at = size

    def _undo(self, path: Path) -> None:
        """There is no room even to begin: this process has no track."""
        if self._descriptor >= 0:
            with suppress(OSError):
                path.unlink()
        self._stop(State.NO_ROOM)

    def _more(self) -> bool:
        """Go on in a new chunk; False: recording is over."""
        if self._state:
            return False
        if self._descriptor < 0:
            self.open()
            if self._descriptor < 0:
                self._stop(self._state or State.LIMIT)
                return False
            if self._at < self._end:
                return True
        # Only the last chunk is not whole pages: nothing is mapped behind it.
        chunk = min(self._chunk * 2, CHUNK_BYTES_MAX, _whole(self._bytes_max - self._bytes))
        if chunk < RECORD_BYTES:
            self._stop(State.LIMIT)
            return False
        self._chunk = chunk
        try:
            self._take(HEADER_BYTES + self._bytes + self._chunk)
            self._map()
        except OSError:
            self._stop(State.NO_ROOM)
            return False
        return True

    def _take(self, size: int) -> None:
        """Take the room of a file of that size. Raises OSError."""
        told = os.fstatvfs(self._descriptor)
        if told.f_bavail * told.f_frsize < self._free_bytes_min + self._chunk:
            raise OSError("the room that is left is the run's")
        os.posix_fallocate(self._descriptor, 0, size)

    def _map(self) -> None:
        """Let the next records go into the last chunk of the file."""
        at = HEADER_BYTES + self._bytes
        memory = mmap.mmap(self._descriptor, self._chunk, offset=at)
        with suppress(OSError):  # Of an older kernel, and only slower.
            memory.madvise(POPULATE_WRITE)
        self._memory = memory
        self._bytes += self._chunk
        self._at, self._end = 0, self._chunk

    def _stop(self, state: int) -> None:
        self._state = State(state)
        self._at = self._end
        if self._descriptor >= 0:
            with suppress(OSError):  # Then it ends with its last record, and does not say why.
                os.pwrite(self._descriptor, STOPPED.pack(now(), state), STOPPED_AT)


def _whole(size: int) -> int:
    """Bytes of the whole records that so many bytes have room for."""
    return size - size % RECORD_BYTES
