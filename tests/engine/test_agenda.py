"""The agenda and the running turns: what is first, what counts, what is taken."""

from lockstep.engine.agenda import Agenda
from lockstep.engine.outside import Outside, What
from lockstep.engine.running import Running


def event(number: int, step: int) -> Outside:
    return Outside(number, (step, 0), What.EVENT, 0, 0, b"")


def test_the_first_tag_is_the_smallest_of_all_three_kinds() -> None:
    agenda = Agenda(lambda item: True)
    assert agenda.first() is None
    agenda.at((7, 0)).admit = True
    assert agenda.first() == (7, 0)
    agenda.add_deadline((6, 0), item=1)
    assert agenda.first() == (6, 0)
    agenda.add_outside(event(1, 5))
    assert agenda.first() == (5, 0)


def test_everything_at_one_tag_is_taken_together_outside_events_as_they_arrived() -> None:
    agenda = Agenda(lambda item: True)
    agenda.add_outside(event(2, 5))
    agenda.add_outside(event(1, 5))
    agenda.add_deadline((5, 0), item=3)
    agenda.at((5, 0)).close = True
    pending = agenda.take((5, 0))
    assert [e.number for e in pending.outside] == [1, 2]
    assert (pending.overdue, pending.close) == ([3], True)
    assert agenda.first() is None


def test_the_deadline_of_an_item_that_is_over_is_void() -> None:
    going = [1]
    agenda = Agenda(going.__contains__)
    agenda.add_deadline((5, 0), item=1)
    assert not agenda.only_outside()
    going.clear()
    assert agenda.only_outside()
    assert agenda.first() is None


def test_outside_events_alone_do_not_count_as_something_that_will_happen() -> None:
    agenda = Agenda(lambda item: True)
    agenda.add_outside(event(1, 5))
    assert agenda.only_outside()
    agenda.at((9, 0)).retry = True
    assert not agenda.only_outside()


def test_a_tag_is_free_when_nothing_of_any_kind_is_there() -> None:
    agenda = Agenda(lambda item: True)
    agenda.at((1, 1)).retry = True
    agenda.add_outside(event(1, 2))
    agenda.add_deadline((3, 0), item=1)
    assert [agenda.free(tag) for tag in ((1, 1), (2, 0), (3, 0), (4, 0))] == [False] * 3 + [True]


def test_the_lowest_running_turn_is_known_while_lows_rise_and_turns_end() -> None:
    running = Running()
    assert running.lowest() is None
    running.begin(4, (0, 0), (0, 1))
    running.begin(2, (0, 0), (0, 1))
    assert running.lowest() == ((0, 1), 2)
    running.raise_low(2, (9, 0))
    assert running.lowest() == ((0, 1), 4)
    running.raise_low(4, (0, 0))  # Never falls.
    assert running.lowest() == ((0, 1), 4)
    assert running.end(4) == (0, 0)
    assert running.lowest() == ((9, 0), 2)
    running.end(2)
    assert running.lowest() is None and not running


def test_an_agent_whose_turn_ended_and_began_again_has_its_new_low() -> None:
    running = Running()
    running.begin(1, (0, 0), (0, 1))
    running.end(1)
    running.begin(1, (5, 0), (5, 1))
    assert running.lowest() == ((5, 1), 1)
    assert list(running) == [1]
