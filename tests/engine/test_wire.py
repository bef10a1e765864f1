"""Step reports: layout of the slots, whole steps out of arbitrarily cut drains, what is refused."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import Kind, encode
from lockstep.engine.wire import (
    RESULT_SLOT,
    TICKET_SLOT,
    Answer,
    FromEngine,
    Slots,
    StepAssembler,
    StepReport,
    step_report,
)

Row = tuple[int, int, int, int, int, int]


def slots(rows: Sequence[Row]) -> Slots:
    return np.array(rows, dtype=RESULT_SLOT)


def end(ticket: int) -> Row:
    return (FromEngine.END, 0, 0, ticket, 1, 5)


def token(ticket: int, value: int) -> Row:
    return (FromEngine.TOKEN, 0, 0, ticket, value, 0)


def step(number: int) -> Row:
    return (FromEngine.STEP, 0, 0, 0, number, 0)


def result(ticket: int, size: int = 3) -> bytes:
    return encode(Kind.RESULT, b"x" * size, id=ticket, item=2, peer=1)


def assemble(assembler: StepAssembler, rows: Sequence[Row], records: bytes) -> list[StepReport]:
    return list(assembler.feed(slots(rows), records))


@pytest.mark.parametrize(
    ("dtype", "offsets"),
    [
        (TICKET_SLOT, {"op": 0, "agent": 4, "ticket": 8, "a": 16, "b": 24}),
        (RESULT_SLOT, {"op": 0, "model": 2, "slot": 4, "ticket": 8, "a": 16, "b": 24}),
    ],
)
def test_each_field_of_a_slot_lies_at_its_offset(
    dtype: np.dtype[np.void], offsets: dict[str, int]
) -> None:
    assert dtype.itemsize == 32
    assert dtype.fields is not None
    assert {name: field[1] for name, field in dtype.fields.items()} == offsets


def test_a_report_holds_tokens_and_answers_in_slot_order() -> None:
    rows = [token(8, 5), token(4, 6), end(8), end(4), step(9)]
    records = result(8) + encode(Kind.CANCELLED, b"why", id=4)
    assert step_report(slots(rows), records) == StepReport(
        step=9,
        body=slots(rows).tobytes() + records,
        tokens=((8, 5), (4, 6)),
        answers=(
            Answer(8, 1, 5, result(8)),
            Answer(4, 1, 5, encode(Kind.CANCELLED, b"why", id=4)),
        ),
    )


@pytest.mark.parametrize(
    ("rows", "records", "message"),
    [
        ([], b"", "step report: the last slot is not STEP"),
        ([step(1), end(1)], b"", "step report: the last slot is not STEP"),
        ([end(1), step(1)], b"", "step report: 1 END slots, 0 answers"),
        ([step(1)], result(1), "step report: 0 END slots, 1 answers"),
        ([end(1), step(1)], encode(Kind.SEND), "step report: kind 33 in place of an answer"),
        ([end(1), step(1)], result(1)[:-1], "record at byte 0: size 35"),
    ],
)
def test_slots_and_records_that_do_not_belong_together_are_refused(
    rows: Sequence[Row], records: bytes, message: str
) -> None:
    with pytest.raises(ProtocolError, match=re.escape(message)):
        step_report(slots(rows), records)


STEPS = st.lists(st.lists(st.integers(0, 20), max_size=3), min_size=1, max_size=6)


@given(STEPS, st.data())
def test_however_the_rings_are_drained_the_same_steps_come_out(
    sizes: list[list[int]], data: st.DataObject
) -> None:
    """Each step is the sizes of its answers; a step's records come before its slots."""
    rows: list[Row] = []
    needed: list[int] = []  # Bytes of records that must be there before each row.
    records = b""
    expected = []
    for number, answers in enumerate(sizes):
        own = [token(number * 10, number), *(end(number * 10 + n) for n in range(len(answers)))]
        own.append(step(number))
        data_of = b"".join(result(number * 10 + n, size) for n, size in enumerate(answers))
        expected.append(step_report(slots(own), data_of))
        records += data_of
        rows += own
        needed += [len(records)] * len(own)
    assembler = StepAssembler()
    found = []
    row = byte = 0
    while row < len(rows):
        bytes_to = data.draw(st.integers(byte, len(records)))
        ready = sum(1 for size in needed if size <= bytes_to)
        rows_to = data.draw(st.integers(row, max(row, ready)))
        if (rows_to, bytes_to) == (row, byte):
            rows_to, bytes_to = row + 1, max(byte, needed[row])  # Else it might never end.
        found += assemble(assembler, rows[row:rows_to], records[byte:bytes_to])
        row, byte = rows_to, bytes_to
    assert found == expected


def test_records_of_a_later_step_are_kept() -> None:
    assembler = StepAssembler()
    assert assemble(assembler, [], result(1) + result(2)) == []
    (first,) = assemble(assembler, [end(1), step(0), end(2)], b"")
    (second,) = assemble(assembler, [step(1)], b"")
    assert [a.ticket for a in first.answers + second.answers] == [1, 2]


@pytest.mark.parametrize("cut", [1, 8, 37, 40])
def test_a_step_without_its_whole_records_is_refused(cut: int) -> None:
    with pytest.raises(ProtocolError, match=r"step report: an answer's record is (missing|cut)"):
        assemble(StepAssembler(), [end(1), step(0)], result(1)[:-cut])


@pytest.mark.parametrize("size", [0, 1, 31, 2**31, 2**32 - 1])
def test_a_record_with_a_senseless_size_is_refused(size: int) -> None:
    data = size.to_bytes(4, "little") + result(1)[4:]
    with pytest.raises(ProtocolError):
        assemble(StepAssembler(), [end(1), step(0)], data)


@given(st.binary(max_size=128), st.binary(max_size=128))
def test_arbitrary_bytes_are_steps_or_a_protocol_error(rows: bytes, records: bytes) -> None:
    drained = np.frombuffer(rows[: len(rows) // 32 * 32], dtype=RESULT_SLOT)
    try:
        list(StepAssembler().feed(drained, records))
    except ProtocolError:
        pass


def test_the_last_word_of_one_whose_provider_failed_is_no_step() -> None:
    assembler = StepAssembler()
    said = encode(Kind.FAILED, b"out of memory")
    last = (FromEngine.FAILED, 3, 0, 0, 0, 0)
    (whole,) = assemble(assembler, [end(1), step(0), last], result(1) + said)
    assert whole.step == 0 and assembler.failed == (3, "out of memory")
    with pytest.raises(ProtocolError, match="an answer's record is missing"):
        assemble(StepAssembler(), [last], b"")
