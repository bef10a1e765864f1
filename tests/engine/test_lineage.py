"""Lineage: which recorded writes made what the slots hold."""

import pytest

from lockstep.engine.errors import JournalCorrupt
from lockstep.engine.lineage import Lineage, Row
from lockstep.engine.restored import ACTIVE, Kept
from lockstep.engine.wire import FromEngine as Op


def row(op: Op, slot: int, ticket: int, a: int, b: int) -> Row:
    return (op, 0, slot, ticket, a, b)


def lineage(*steps: list[Row], filled: int, tokens: int = 1) -> Lineage:
    """Of slot 0, whose last row has so many prompt tokens and tokens of an answer."""
    found = Lineage([Kept(0, 0, 9, 0, filled, (5,) * tokens, ACTIVE)])
    for number in range(len(steps) - 1, -1, -1):
        found.step(number, steps[number])
    return found


def test_what_is_held_was_written_by_its_chunks_and_decodes() -> None:
    first = [row(Op.ADMIT, 0, 9, 0, 0), row(Op.CHUNK, 0, 9, 0, 4)]
    second = [row(Op.CHUNK, 0, 9, 4, 2), row(Op.TOKEN, 0, 9, 5, 6), row(Op.TOKEN, 1, 8, 5, 3)]
    found = lineage(first, second, [row(Op.TOKEN, 0, 9, 5, 7)], filled=6, tokens=2)
    assert found.needed == {0: {1: 4}, 1: {0: 2}, 2: {0: 1}}
    assert found.is_complete() and list(found.tickets) == [9]


def test_a_copy_is_followed_to_where_it_came_from_and_no_further_than_it_goes() -> None:
    source = [row(Op.CHUNK, 1, 8, 0, 10), row(Op.TOKEN, 1, 8, 5, 10)]
    decodes = [row(Op.TOKEN, 1, 8, 5, 11)]
    copied = [row(Op.COPY, 0, 1, 2, 5), row(Op.ADMIT, 0, 9, 7, 0), row(Op.CHUNK, 0, 9, 7, 2)]
    found = lineage(source, decodes, [row(Op.CHUNK, 0, 7, 0, 2)], copied, filled=9)
    assert found.needed == {0: {0: 10}, 2: {0: 2}, 3: {0: 5, 2: 2}}
    assert list(found.tickets) == [9, 7, 8]


def test_of_a_move_so_much_is_needed_as_was_used() -> None:
    first = [row(Op.CHUNK, 0, 7, 0, 6)]
    rested = [row(Op.MOVE, 4, 0, 0, 6), row(Op.ADMIT, 0, 8, 0, 0), row(Op.CHUNK, 0, 8, 0, 5)]
    back = [row(Op.MOVE, 0, 4, 0, 3), row(Op.ADMIT, 0, 9, 3, 0), row(Op.CHUNK, 0, 9, 3, 2)]
    found = lineage(first, rested, back, filled=5)
    assert found.needed == {0: {0: 6}, 1: {0: 3}, 2: {0: 3, 2: 2}}


def test_writes_that_were_written_over_are_not_needed() -> None:
    before = [row(Op.CHUNK, 0, 8, 0, 9)]
    found = lineage(before, [row(Op.ADMIT, 0, 9, 0, 0), row(Op.CHUNK, 0, 9, 0, 3)], filled=3)
    assert found.needed == {1: {1: 3}}


def test_what_nothing_wrote_is_damage() -> None:
    found = lineage([row(Op.CHUNK, 0, 9, 2, 4)], filled=6)
    with pytest.raises(JournalCorrupt, match=r"slot 0 of model 0: nothing .* its first 2 tokens"):
        found.check()
