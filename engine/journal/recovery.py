"""Recovery: what is done about a journal whose bytes do not all fit. One table.

A run that was killed leaves a torn tail: the beginning of a frame, or room that was never written.
It held nothing that was acknowledged, so it is cut. Everything else is damage: a person must look,
and nothing is changed. The table below is this rule, docs/journal.md shows it, and
tests/engine/journal/test_recovery.py walks the product of its columns.
"""

from enum import Enum
from typing import NamedTuple


class Found(Enum):
    """What does not fit, where reading stops."""

    SEGMENT_MISSING = "a segment before this one is missing"
    HEADER_SHORT = "fewer bytes than a segment header"
    HEADER_BAD = "segment header: magic, checksum or reserved bytes wrong"
    HEADER_FOREIGN = "segment header of another run or another place"
    HEAD_SHORT = "fewer bytes than a frame header"
    HEAD_BAD = "frame header: checksum wrong"
    LENGTH = "frame header: length beyond the limit"
    KIND = "frame header: unknown kind"
    BODY_SHORT = "fewer bytes than body and padding"
    BODY_BAD = "body: checksum wrong"
    PADDING = "padding is not zero"
    CHAIN = "frame follows another one than the one before it"


class Rest(Enum):
    """What lies from there to the end of the segment."""

    FRAMES = "whole frames behind it"
    ZEROS = "zeros only"
    ZERO_TAIL = "zeros from a sector in it on"
    OTHER = "anything else"


class Where(Enum):
    """Which segment it is."""

    ONLY = "the first and last"
    LAST = "the last of several"
    EARLIER = "one before the last"


class Verdict(Enum):
    """What is done."""

    CUT = "cut"
    REFUSE = "refuse"


class Row(NamedTuple):
    """One row; an empty column means any. The first row that fits decides."""

    found: tuple[Found, ...]
    where: tuple[Where, ...]
    rest: tuple[Rest, ...]
    verdict: Verdict
    why: str


HEADERS = (Found.HEADER_SHORT, Found.HEADER_BAD)
SHORT = (Found.HEAD_SHORT, Found.BODY_SHORT)
UNWRITTEN = (Rest.ZEROS, Rest.ZERO_TAIL)
TABLE = (
    Row(
        (), (Where.EARLIER,), (), Verdict.REFUSE,
        "a segment is synced before the next one is made: it was whole once",
    ),
    Row(
        (), (), (Rest.FRAMES,), Verdict.REFUSE,
        "a write that was torn has nothing behind it",
    ),
    Row(
        HEADERS, (Where.ONLY,), (), Verdict.REFUSE,
        "there is no run: its identity was never written",
    ),
    Row(
        (Found.HEADER_SHORT,), (Where.LAST,), (), Verdict.CUT,
        "the segment was made and its header was not written yet: the file is removed",
    ),
    Row(
        (Found.HEADER_BAD,), (Where.LAST,), (Rest.ZEROS,), Verdict.CUT,
        "the file had grown and nothing of it arrived: the file is removed",
    ),
    Row(
        SHORT, (), (), Verdict.CUT,
        "the end of the last write is missing",
    ),
    Row(
        (Found.HEAD_BAD, Found.BODY_BAD), (), UNWRITTEN, Verdict.CUT,
        "the file had grown and the last sectors of the write never arrived",
    ),
    Row(
        (), (), (), Verdict.REFUSE,
        "bytes that were written once are not what they were, or not of this run",
    ),
)  # fmt: skip


def judge(found: Found, where: Where, rest: Rest) -> Row:
    """The row that decides."""
    for row in TABLE:
        if (
            found in (row.found or Found)
            and where in (row.where or Where)
            and rest in (row.rest or Rest)
        ):
            return row
    raise AssertionError("the last row fits everything")


def markdown() -> str:
    """The table as docs/journal.md shows it."""
    lines = ["| found | in which segment | behind it | verdict | why |", "|---|---|---|---|---|"]
    for row in TABLE:
        cells = [
            "; ".join(each.value for each in column) or "any"
            for column in (row.found, row.where, row.rest)
        ]
        lines.append(f"| {' | '.join(cells)} | **{row.verdict.value}** | {row.why} |")
    return "\n".join(lines) + "\n"
