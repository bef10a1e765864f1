"""A step's slots, as they are recorded: what, and in which order."""

from lockstep.engine import step_rows
from lockstep.engine.plan import (
    Admission,
    Booked,
    Chunk,
    Copy,
    Decode,
    Left,
    ModelPlan,
    Outcome,
)
from lockstep.engine.wire import FromEngine as Op

PART = ModelPlan(
    2,
    evicted=(5,),
    admitted=(Admission(7, 1, 9, 3), Admission(8, 0, 4, shared=2)),
    copies=(Copy(0, 4, 0, 6, move=True), Copy(3, 1, 1, 8)),
    chunks=(Chunk(7, 1, 9, (1, 2), True, 3), Chunk(8, 0, 4, (5, 6, 7), False)),
    decodes=(Decode(6, 2, 11, 5), Decode(5, 3, 1, 5)),
    lengths=(7, 11, 11, 1),
)


def test_conversations_leave_before_copies_and_rows_are_admitted_after_them() -> None:
    assert step_rows.planned(PART) == [
        (Op.EVICT, 2, 5, 0, 0, 0),
        (Op.MOVE, 2, 4, 0, 0, 6),
        (Op.COPY, 2, 1, 3, 1, 8),
        (Op.ADMIT, 2, 1, 7, 9, 3),
        (Op.ADMIT, 2, 0, 8, 4, 0),
        (Op.SHARE, 2, 0, 8, 2, 0),
        (Op.CHUNK, 2, 1, 7, 9, 2),
        (Op.CHUNK, 2, 0, 8, 4, 3),
    ]


def test_tokens_come_in_the_order_of_the_plan_and_stand_behind_what_they_follow_from() -> None:
    outcomes = {(2, 3): Outcome(None), (2, 2): Outcome(50), (2, 1): Outcome(40, stop=True)}
    assert step_rows.drawn(PART, outcomes) == [
        (Op.TOKEN, 2, 1, 7, 40, 11),
        (Op.TOKEN, 2, 2, 6, 50, 12),
    ]


def test_rows_that_left_are_told() -> None:
    assert step_rows.left(Booked([], [Left(2, 1, 7)])) == [(Op.LEAVE, 2, 1, 7, 0, 0)]
