"""Mailboxes: one order of events, whatever order they were put in (rule 2)."""

from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.mailbox import Event, EventClass, Mailbox


def event(tag: tuple[int, int], event_class: int, key: int, order: int = 0) -> Event:
    return Event(tag, event_class, key, order, 0, 0, 0, b"")


IN_ORDER = [
    event((1, 0), EventClass.START, 0),
    event((1, 0), EventClass.COMPLETION, 1),
    event((1, 0), EventClass.COMPLETION, 9),  # By ticket.
    event((1, 0), EventClass.MESSAGE, 2),
    event((1, 0), EventClass.MESSAGE, 3),  # By order of application: no sender overtakes itself.
    event((1, 0), EventClass.UNDELIVERED, 1),
    event((1, 0), EventClass.ITEM, 4, 7),
    event((1, 0), EventClass.ITEM, 4, 8),  # A join's predecessors, in file order.
    event((1, 0), EventClass.ITEM, 5, 6),
    event((1, 0), EventClass.TIMER, 1),
    event((1, 0), EventClass.OUTSIDE, 0),
    event((1, 0), EventClass.CLOSE, 0),
    event((1, 1), EventClass.COMPLETION, 0),  # The tag counts before the class.
    event((2, 0), EventClass.START, 0),
]


@given(st.permutations(IN_ORDER))
def test_events_are_taken_in_the_order_of_rule_2(put: list[Event]) -> None:
    mailbox = Mailbox()
    for one in put:
        mailbox.put(one)
    assert mailbox.take() == IN_ORDER


def test_a_taken_mailbox_is_empty() -> None:
    mailbox = Mailbox()
    mailbox.put(IN_ORDER[0])
    assert len(mailbox) == 1
    mailbox.take()
    assert len(mailbox) == 0
    assert mailbox.take() == []


def test_dropped_events_are_never_taken() -> None:
    mailbox = Mailbox()
    for one in IN_ORDER:
        mailbox.put(one)
    mailbox.drop(lambda e: e.event_class != EventClass.TIMER)
    assert [e.event_class for e in mailbox.take()] == [EventClass.TIMER]
