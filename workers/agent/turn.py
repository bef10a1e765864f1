"""What one turn has written so far: its log lines and its records, within the turn's limits.

A turn is all or nothing. Nothing of it leaves the process before it is over, and of a turn that
failed only the logs do.
"""

import hashlib
import importlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from lockstep.engine.batch import Batch
from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import (
    ALIGN,
    GUEST_KINDS,
    HEADER_BYTES,
    PEER_NONE,
    TAKES_EFFECT,
    Kind,
    Outcome,
    Record,
    decode,
    encode,
    encode_record,
)
from lockstep.workers.agent.spec import AgentSpec, over_limit

STDOUT = 1
STDERR = 2
LEVELS = {STDOUT: 1, STDERR: 3}  # info, error

# Kinds of which nothing but their form and their size is checked here.
PLAIN_KINDS = GUEST_KINDS - {Kind.LOG}
_IS_PLAIN = np.zeros(1 << 16, np.bool_)
_IS_PLAIN[sorted(PLAIN_KINDS)] = True
_JUDGED = struct.Struct("<IH22xI")  # Of a header: size, kind, reserved.
SHORT_BYTES = 1024  # Below, a loop is faster than numpy's dozen calls.


def _short_sha256() -> Callable[[bytes], Any]:
    """The interpreter's own: of few bytes, it touches a fraction of the memory that OpenSSL's does.

    Of many bytes, that one is faster. The module is named otherwise from Python 3.12 on.
    """
    for name in ("_sha256", "_sha2"):
        try:
            found: Callable[[bytes], Any] = importlib.import_module(name).sha256
        except ImportError:
            continue
        return found
    return hashlib.sha256


short_sha256 = _short_sha256()


def digest_of(records: bytes) -> bytes:
    """SHA-256 of a turn's records."""
    make = short_sha256 if len(records) < SHORT_BYTES else hashlib.sha256
    digest: bytes = make(records).digest()
    return digest


class TurnRecords:
    """Records of the running turn of one agent.

    Attributes:
        touched: Something was logged or submitted.
    """

    def __init__(self, spec: AgentSpec) -> None:
        self._spec = spec
        self._begin()

    def log(self, stream: int, data: bytes) -> None:
        """Append what the guest wrote to `STDOUT` or `STDERR`; each full line is a LOG record.

        Raises:
            GuestStopped: a limit of the turn is exceeded.
        """
        self.touched = True
        self._count_log_bytes(len(data))
        lines = data.split(b"\n")
        for number, part in enumerate(lines):
            if part or number < len(lines) - 1:
                self._append(stream, part)
            if number < len(lines) - 1:
                self._end_line(stream)

    def check_log_room(self, count: int) -> None:
        """Refuse ``count`` more bytes of log before they are read.

        Raises:
            GuestStopped: OVER_LIMIT, ``log_bytes_max``.
        """
        most = self._spec.log_bytes_max
        if self._log_bytes + count > most:
            raise over_limit("log_bytes_max", most, "more log bytes in one turn")

    def check_room(self, count: int) -> None:
        """Refuse ``count`` more bytes of records before they are read.

        Raises:
            GuestStopped: OVER_LIMIT, ``turn_out_bytes_max``.
        """
        most = self._spec.turn_out_bytes_max
        if self._out_bytes + count > most:
            raise over_limit(
                "turn_out_bytes_max", most, f"{self._out_bytes + count} bytes in one turn"
            )

    def submit(self, data: bytes) -> None:
        """Take records of the guest: all of ``data``, or none of it.

        Raises:
            GuestStopped: OVER_LIMIT.
            ProtocolError: malformed, of a kind that a guest may not write, or a LOG that claims
                to be a line of standard output. What depends on the world (ids, peers, items) is
                the sequencer's to check.
        """
        self.check_room(len(data))
        self.touched = True
        look = count_plain if len(data) < SHORT_BYTES else count_plain_batch
        count = look(data, self._spec.record_bytes_max)
        if count is None:
            count = 0
            for record in decode(data):
                self._check(record)
                count += 1
        self._out.append((data, count))
        self._out_bytes += len(data)

    def finish(self, outcome: Outcome) -> tuple[bytes, int]:
        """Close the turn: its records as bytes, logs first, and how many. The next one begins."""
        for stream in (STDOUT, STDERR):
            if self._partial[stream]:
                self._end_line(stream)
        parts, count = list(self._logs), len(self._logs)
        for data, found in self._out:
            if outcome in TAKES_EFFECT:
                parts.append(data)
                count += found
            else:
                kept = [each for each in decode(data) if each.kind == Kind.LOG]
                parts += map(encode_record, kept)
                count += len(kept)
        self._begin()
        return b"".join(parts), count

    def _begin(self) -> None:
        self.touched = False
        self._logs: list[bytes] = []
        self._partial = {STDOUT: bytearray(), STDERR: bytearray()}
        self._open = {STDOUT: False, STDERR: False}
        self._log_lines = 0
        self._log_bytes = 0
        self._out: list[tuple[bytes, int]] = []  # Checked records, and how many.
        self._out_bytes = 0

    def _append(self, stream: int, part: bytes) -> None:
        # A line is counted when it begins, so that ending the turn can flush it without asking.
        if not self._open[stream]:
            self._count_line()
            self._open[stream] = True
        line = self._partial[stream]
        most = self._spec.record_bytes_max
        if HEADER_BYTES + len(line) + len(part) > most:
            raise over_limit("record_bytes_max", most, "a longer line was logged")
        line += part

    def _end_line(self, stream: int) -> None:
        line = bytes(self._partial[stream])
        self._logs.append(encode(Kind.LOG, _utf8(line), id=LEVELS[stream], peer=stream))
        self._partial[stream].clear()
        self._open[stream] = False

    def _count_log_bytes(self, count: int) -> None:
        self.check_log_room(count)
        self._log_bytes += count

    def _count_line(self) -> None:
        most = self._spec.log_lines_max
        if self._log_lines == most:
            raise over_limit("log_lines_max", most, "more log lines in one turn")
        self._log_lines += 1

    def _check(self, record: Record) -> None:
        kind = record.kind
        if kind not in GUEST_KINDS:
            raise ProtocolError(f"record of kind {kind}: not one that a guest may write")
        size, most = HEADER_BYTES + len(record.payload), self._spec.record_bytes_max
        if size > most:
            raise over_limit("record_bytes_max", most, f"{Kind(kind).name} of {size} bytes")
        if kind == Kind.LOG:
            if record.peer != PEER_NONE:
                # 1 and 2 mark lines of standard output and error, which only `log` makes.
                raise ProtocolError(
                    f"LOG with peer {record.peer}, expected {PEER_NONE} (nobody) from a guest"
                )
            self._count_log_bytes(len(record.payload))
            self._count_line()


def count_plain(data: bytes, size_max: int) -> int | None:
    """How many records there are if all are well-formed, of a plain kind and not too large.

    None says only that somebody has to look closer.
    """
    at, end, count = 0, len(data), 0
    while at < end:
        if end - at < HEADER_BYTES:
            return None
        size, kind, reserved = _JUDGED.unpack_from(data, at)
        after = at + (size + ALIGN - 1 & -ALIGN)
        if not HEADER_BYTES <= size <= size_max or after > end or reserved:
            return None
        if kind not in PLAIN_KINDS or (at + size < after and any(data[at + size : after])):
            return None
        at, count = after, count + 1
    return count


def count_plain_batch(data: bytes, size_max: int) -> int | None:
    """As `count_plain`, for very many records."""
    try:
        heads = Batch(data).heads
    except ProtocolError:
        return None
    plain = _IS_PLAIN[heads["kind"]].all() and (heads["size"] <= size_max).all()
    return len(heads) if plain else None


def _utf8(line: bytes) -> bytes:
    """The line as valid UTF-8, never longer than it was, so that it still fits its record."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode("utf-8", "replace").replace("\ufffd", "?").encode()
    return line
