"""What crosses between sequencer and inference process, as numpy-structured slots.

Variable parts (the INFER record of a ticket, the RESULT record of an answer) travel in a byte
ring beside the slots, in the order of the slots that announce them.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lockstep.engine.errors import ProtocolError
from lockstep.engine.plan import FINISH_STATUS
from lockstep.engine.record import FLAG_RAW, Kind, decode, decode_at, encode_record
from lockstep.engine.strict_json import loads

# Sequencer -> engine, 32 bytes.
#
#   op      agent        ticket  a                b
#   TICKET  agent index  ticket  due step         the agent's own request number
#   CANCEL  0            ticket  due step         0
#   GRANT   0            0       limit            applied (rule 5)
#   STOP    0            0       0                0
TICKET_SLOT = np.dtype(
    [("op", "<u4"), ("agent", "<u4"), ("ticket", "<u8"), ("a", "<u8"), ("b", "<u8")]
)

# Engine -> sequencer, 32 bytes. STEP closes a step and comes after everything of it.
#
#   op      model  slot  ticket  a            b
#   EVICT   model  slot  0       0            0
#   ADMIT   model  slot  ticket  prefix hit   sample
#   COPY    model  slot  source  start        tokens        source: a slot
#   MOVE    model  slot  source  0            tokens        likewise; whose it is goes there, too
#   SHARE   model  slot  ticket  tokens       0             of the hit, that others may copy
#   CHUNK   model  slot  ticket  start        tokens
#   TOKEN   model  slot  ticket  token id     position
#   SCORE   sample place ticket  token id     logprob       place: of the token in the answer
#   LEAVE   model  slot  ticket  0            0             other samples of it go on
#   END     0      0     ticket  status       prompt tokens
#   TAKEN   what   0     ticket  due step     0             arrival order: of a ticket or cancel
#   STEP    0      0     0       step         0
#   FAILED  model  0     0       step         0             its last word: the provider failed
RESULT_SLOT = np.dtype(
    [
        ("op", "<u2"),
        ("model", "<u2"),
        ("slot", "<u4"),
        ("ticket", "<u8"),
        ("a", "<i8"),
        ("b", "<i8"),
    ]
)

Slots: TypeAlias = npt.NDArray[np.void]

RAW_TEXT_OFFSET = 32  # Of the text in a binary RESULT.
_FAILED = tuple(FINISH_STATUS[reason] for reason in ("refused", "invalid_output", "timeout"))
# Of a request that ends so before it has a token nobody says that its prompt was computed.
UNCOMPUTED = tuple(FINISH_STATUS[reason] for reason in ("refused", "cancelled", "timeout"))


class ToEngine(IntEnum):
    """Operations of TICKET_SLOT."""

    TICKET = 1
    CANCEL = 2
    GRANT = 3
    STOP = 4


class FromEngine(IntEnum):
    """Operations of RESULT_SLOT."""

    EVICT = 1
    ADMIT = 2
    CHUNK = 3
    TOKEN = 4
    END = 5
    STEP = 6
    TAKEN = 7
    COPY = 8
    LEAVE = 9
    MOVE = 10
    SHARE = 11
    SCORE = 12  # In steps of 1e-4. First the drawn token's, behind its TOKEN, then the likeliest's.
    FAILED = 13  # Never in a step; why is the text of a FAILED record.


@dataclass(frozen=True, slots=True)
class Answer:
    """A request that ended: its RESULT (or CANCELLED) record, as the guest will read it."""

    ticket: int
    status: int
    prompt_tokens: int
    record: bytes

    @property
    def failed(self) -> bool:
        """Refused, timed out or not finite; a cancelled request has not failed."""
        return self.status in _FAILED

    def reason(self) -> str:
        """Why it failed, as its guest reads it (docs/abi.md)."""
        record, _ = decode_at(self.record, 0)
        text = record.payload[RAW_TEXT_OFFSET:]
        if not record.flags & FLAG_RAW:
            try:
                text = str(loads(record.payload)["error"]).encode()
            except (ValueError, KeyError, TypeError):
                text = record.payload
        return text.rstrip(b"\0").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class StepReport:
    """One executed step, as the sequencer takes it.

    Attributes:
        step: Which one.
        body: Every slot of the step and every answer's record: what history keeps.
        tokens: (ticket, token id) in slot order of the report.
        answers: Requests that ended in it, in order.
        ordered: (what, ticket, due step) that the engine chose in arrival order.
    """

    step: int
    body: bytes
    tokens: tuple[tuple[int, int], ...]
    answers: tuple[Answer, ...]
    ordered: tuple[tuple[int, int, int], ...] = ()


def step_report(slots: Slots, records: bytes) -> StepReport:
    """Build the report of one step from its slots (STEP last) and its answers' records.

    Raises:
        ProtocolError: slots and records do not belong together.
    """
    rows: list[tuple[int, int, int, int, int, int]] = slots.tolist()
    if not rows or rows[-1][0] != FromEngine.STEP:
        raise ProtocolError("step report: the last slot is not STEP")
    tokens = tuple((row[3], row[4]) for row in rows if row[0] == FromEngine.TOKEN)
    ends = [row for row in rows if row[0] == FromEngine.END]
    parts = list(decode(records))
    if len(parts) != len(ends):
        raise ProtocolError(f"step report: {len(ends)} END slots, {len(parts)} answers")
    answers = []
    for end, part in zip(ends, parts, strict=True):
        if part.kind not in (Kind.RESULT, Kind.CANCELLED):
            raise ProtocolError(f"step report: kind {part.kind} in place of an answer")
        answers.append(Answer(end[3], end[4], end[5], encode_record(part)))
    taken = tuple((row[1], row[3], row[4]) for row in rows if row[0] == FromEngine.TAKEN)
    return StepReport(rows[-1][4], slots.tobytes() + records, tokens, tuple(answers), taken)


class StepAssembler:
    """Turns the drained ends of the result rings into whole step reports.

    Attributes:
        failed: (model, why) of a provider that failed: nothing comes behind it. None: none did.
    """

    def __init__(self) -> None:
        self.failed: tuple[int, str] | None = None
        self._slots: list[Slots] = []
        self._records = bytearray()

    def feed(self, slots: Slots, records: bytes) -> list[StepReport]:
        """Add what was drained; every step that is complete now.

        The engine pushes a step's records before its slots, so that a STEP slot always finds
        them; records of a later step may be here already and are kept.
        """
        self._records += records
        if len(slots):
            self._slots.append(slots)
        reports: list[StepReport] = []
        if not self._slots:
            return reports
        rows = np.concatenate(self._slots)
        start = 0
        for stop in np.flatnonzero(rows["op"] == FromEngine.STEP).tolist():
            step = rows[start : stop + 1]
            answers = int(np.count_nonzero(step["op"] == FromEngine.END))
            reports.append(step_report(step, self._take(answers)))
            start = stop + 1
        self._slots = [rows[start:]] if start < len(rows) else []
        if start < len(rows) and rows[start]["op"] == FromEngine.FAILED:
            record, _ = decode_at(self._take(1), 0)
            self._slots = []  # Its last word.
            self.failed = int(rows[start]["model"]), record.payload.decode("utf-8", "replace")
        return reports

    def _take(self, count: int) -> bytes:
        size = 0
        for _ in range(count):
            if size + 4 > len(self._records):
                raise ProtocolError("step report: an answer's record is missing")
            size += (int.from_bytes(self._records[size : size + 4], "little") + 7) & ~7
        taken = bytes(self._records[:size])
        del self._records[:size]
        if len(taken) != size:
            raise ProtocolError("step report: an answer's record is cut")
        return taken
