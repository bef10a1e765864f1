"""The gate: everybody hears once what became of an event, and not before it is promised."""

from __future__ import annotations

from functools import partial
from typing import Any

from lockstep.engine.outside import Outside, What
from lockstep.engine.record import Kind, encode


def test_nobody_is_told_before_the_record_is_promised(intake: Any) -> None:
    heard: list[Outside | None] = []
    intake.gate.bring(What.CANCEL_RUN, 0, b"why", told=heard.append)
    intake.gate.kept(intake.events[0].record())
    assert heard == []
    intake.gate.reveal(intake.gate.take())
    assert heard == [intake.events[0]]
    intake.gate.reveal(intake.gate.take())
    assert len(heard) == 1


def test_what_was_taken_is_told_when_it_is_promised_and_nothing_that_came_after(
    intake: Any,
) -> None:
    heard: list[int | None] = []

    def bring(number: int) -> int:
        told = lambda event: heard.append(event and event.number)  # noqa: E731
        intake.gate.bring(What.CANCEL_RUN, 0, b"why", told=told)
        intake.gate.kept(intake.events[number].record())
        assert intake.gate.untold
        count = intake.gate.take()
        assert not intake.gate.untold
        return int(count)

    first, second, _ = [bring(number) for number in range(3)]
    assert heard == []
    intake.gate.reveal(first)
    assert heard == [1]
    intake.gate.reveal(second)
    assert heard == [1, 2]
    intake.gate.close()  # The third was taken and never promised.
    assert heard == [1, 2, None]


def test_each_hears_of_its_own_event(intake: Any) -> None:
    heard: dict[str, Outside | None] = {}
    intake.gate.bring(What.ITEM, 0, b"1", told=lambda event: heard.update(a=event))
    intake.gate.bring(What.TOOL, 7, b"2")
    intake.gate.bring(What.ITEM, 0, b"3", told=lambda event: heard.update(b=event))
    intake.gate.kept(encode(Kind.ORDERED, id=1))  # What arrival order chose is nobody's.
    intake.pump()
    assert heard == {"a": intake.events[0], "b": intake.events[2]}
    assert intake.gate.counts == {What.ITEM: 2, What.TOOL: 1}


def test_who_came_too_late_or_could_not_be_promised_is_told_that_the_run_has_ended(
    intake: Any,
) -> None:
    heard: list[str] = []
    for number in (1, 2, 3):
        assert intake.gate.unseen == (number > 2)
        told = partial(lambda n, event: heard.append(f"{n} {event and event.number}"), number)
        intake.gate.bring(What.ITEM, 0, b"x", told=told)
        if number == 1:
            intake.pump()
        elif number == 2:
            intake.gate.kept(intake.events[1].record())
            assert not intake.gate.unseen
            intake.gate.bring(What.TOOL, 1)
    intake.gate.close()
    assert heard == ["1 1", "2 None", "3 None"]
    assert not intake.gate.unseen


def test_what_a_recorded_run_had_kept_is_counted_and_told_to_nobody(intake: Any) -> None:
    event = Outside(1, (4, 0), What.EVENT, 0, 0, b"x")
    intake.gate.kept(event.record())
    intake.gate.close()
    assert intake.gate.counts == {What.EVENT: 1}
