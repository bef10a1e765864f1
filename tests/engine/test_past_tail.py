"""The newest part of a past: what it has is what the whole has, the rest is said to be earlier."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator import Run, simulate

from lockstep.engine.errors import JournalCorrupt
from lockstep.engine.history import TagEntry
from lockstep.engine.past import Earlier, Life, Past
from lockstep.engine.record import Kind, encode


@cache
def some_run(seed: int) -> Run:
    return simulate(seed, 0)


@cache
def whole(seed: int) -> Past:
    return Past(some_run(seed).entries)


def tail(seed: int, skipped: int) -> Past:
    return Past(some_run(seed).entries[skipped:], (), skipped)


@given(seed=st.integers(0, 11), data=st.data())
def test_a_part_of_any_length_says_of_every_turn_what_the_whole_says_or_nothing(
    seed: int, data: st.DataObject
) -> None:
    past = whole(seed)
    part = tail(seed, data.draw(st.integers(0, len(past.entries))))
    for agent in range(8):
        everything = past.turns(agent)
        try:
            count = part.count(agent)
        except Earlier:
            assert not part.reaches(agent, 1 << 30)
            with pytest.raises(Earlier):
                part.turn(agent, 0)
            continue
        assert count == len(everything)
        assert part.ended_count(agent) == past.ended_count(agent)
        first = next(n for n in range(count + 1) if part.reaches(agent, n))
        assert first < count  # Its last wake is there.
        for number in range(first, count):
            assert part.turn(agent, number) == everything[number]
            assert part.effect(agent, number) == past.effect(agent, number)
        for number in range(first):
            with pytest.raises(Earlier, match=f"turn {number} of agent {agent} lies before"):
                part.turn(agent, number)
        assert list(Life(part, agent, count)[first:]) == everything[first:]


def test_a_part_reaches_back_the_further_the_longer_it_is() -> None:
    past = whole(3)
    reached = 0
    for agent in range(4):
        firsts = []
        for skipped in range(len(past.entries), -1, -1):
            part = tail(3, skipped)
            here = [n for n in range(past.count(agent) + 1) if part.reaches(agent, n)]
            firsts.append(here[0] if here else 1 << 30)
        assert firsts == sorted(firsts, reverse=True)
        reached += firsts[-1] == 0
    assert reached > 0


def test_what_only_the_whole_knows_is_not_answered_by_a_part() -> None:
    part = Past([], (), 5)
    for ask in (
        lambda: part.count(0),
        lambda: part.turns(0),
        lambda: part.last_step,
        lambda: part.ended,
        lambda: part.outside,
        lambda: part.steps(),
        lambda: part.before((9, 0)),
    ):
        with pytest.raises(Earlier, match="lies before entry 5 of the history, or nowhere"):
            ask()
    assert not part.whole and not part.reaches(0, 0)


def test_what_a_part_knows_of_steps_and_of_the_end_it_says() -> None:
    past = whole(3)
    part = tail(3, len(past.entries) - 20)
    assert part.last_step == past.last_step
    assert part.ended and past.ended


def turn(number: int) -> bytes:
    return encode(Kind.TURN, id=number, peer=1)


def effect(number: int) -> bytes:
    return encode(Kind.EFFECT, id=number, peer=1)


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([effect(4), turn(6)], "entry 7 .* agent 1 has turn 6, expected turn 5"),
        ([turn(5), effect(4)], "entry 7 .* agent 1 has turn 4, expected turn 5"),
        ([turn(5), turn(7)], "entry 7 .* agent 1 has turn 7, expected turn 6"),
        ([effect(4), effect(5)], "entry 7 .* agent 1 has an effect of a turn 5 not begun"),
        ([turn(5), effect(5), effect(6)], "agent 1 has an effect of a turn 6 not begun"),
        ([b"\xff" * 32], "entry 7 of the history cannot be read: size 4294967295 at byte 32"),
    ],
)
def test_damage_in_a_part_is_named_with_its_place_in_the_whole(
    records: list[bytes], found: str
) -> None:
    entry = TagEntry((1, 0))
    for record in records:
        entry.add(record)
    with pytest.raises(JournalCorrupt, match=found):
        Past([TagEntry((0, 0)).close().body, entry.close().body], (), 6).count(1)


def test_a_life_is_read_turn_by_turn() -> None:
    past = whole(3)
    life = Life(past, 0, past.ended_count(0))
    assert len(life) == past.ended_count(0) > 2
    assert list(life) == past.turns(0)[: len(life)]
    assert life[-1] == life[len(life) - 1]
    with pytest.raises(IndexError, match=f"turn {len(life)} of {len(life)}"):
        life[len(life)]
