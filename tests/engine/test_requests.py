"""Tickets: numbered as issued, answered once, request numbers free again on delivery."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import LockstepBug
from lockstep.engine.requests import RequestBook, Ticket


def test_a_ticket_lives_from_its_number_to_its_delivery() -> None:
    book = RequestBook(agents=2)
    first = book.issue(1, request=40, item=3, due=7)
    second = book.issue(0, request=40, item=0, due=5)
    third = book.issue(1, request=41, item=0, due=9)
    assert [first, second, third] == [
        Ticket(1, 7, 1, 40, 3, 0),
        Ticket(2, 5, 0, 40, 0, 0),
        Ticket(3, 9, 1, 41, 0, 1),
    ]
    assert book.issued == 3
    assert book.open(1) == {40: first, 41: third}
    assert book.smallest_due() == 5
    assert book.answer(2) == second
    assert book.smallest_due() == 7
    assert not book.unanswered(second)
    assert book.open(0) == {40: second}  # Answered, not seen yet: the number is still in use.
    book.deliver(2)
    assert book.open(0) == {}
    assert book.issue(0, request=40, item=0, due=9).ordinal == 1


@pytest.mark.parametrize("number", [0, 2, 99])
def test_an_unknown_ticket_is_our_bug(number: int) -> None:
    book = RequestBook(agents=1)
    book.issue(0, 1, 0, 1)
    for call in (book.answer, book.find):
        with pytest.raises(LockstepBug, match=f"ticket {number} was answered twice or never"):
            call(number)


def test_a_second_answer_is_our_bug() -> None:
    book = RequestBook(agents=1)
    book.issue(0, 1, 0, 1)
    book.answer(1)
    with pytest.raises(LockstepBug, match="ticket 1 was answered twice"):
        book.answer(1)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=30))
def test_the_smallest_due_is_that_of_the_unanswered(steps: list[tuple[bool, int]]) -> None:
    book = RequestBook(agents=1)
    model: dict[int, int] = {}
    for issue, number in steps:
        if issue:
            model[book.issue(0, book.issued, 0, number).number] = number
        elif model:
            ticket = list(model)[number % len(model)]
            book.answer(ticket)
            del model[ticket]
        assert book.smallest_due() == min(model.values(), default=None)
