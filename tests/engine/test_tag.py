"""Tags: the next one, and the one at which a turn takes effect (rule 2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine import tag as tags
from lockstep.engine.tag import Tag

TAGS = st.tuples(st.integers(0, 2**40), st.integers(0, tags.MICROSTEPS_MAX - 1))


@pytest.mark.parametrize(
    ("tag", "following"),
    [((0, 0), (0, 1)), ((7, 254), (7, 255)), ((7, 255), (8, 0)), ((7, 300), (8, 0))],
)
def test_after_the_last_microstep_comes_the_next_step(tag: Tag, following: Tag) -> None:
    assert tags.next_microstep(tag) == following


@pytest.mark.parametrize(
    ("fuel", "delay", "effect"),
    [
        (0, 1, (5, 4)),
        (99, 1, (5, 4)),  # Less than a quantum: the next microstep.
        (99, 9, (5, 4)),  # The delay is for turns of a quantum or more.
        (100, 1, (6, 0)),
        (199, 1, (6, 0)),
        (200, 1, (7, 0)),
        (100, 4, (9, 0)),
        (900, 4, (14, 0)),  # The greater of delay and fuel.
    ],
)
def test_work_costs_logical_time(fuel: int, delay: int, effect: Tag) -> None:
    assert tags.effect_tag((5, 3), fuel, quantum=100, delay=delay) == effect


@given(TAGS, st.integers(0, 10**12), st.integers(1, 10**9), st.integers(1, 1000))
def test_an_effect_is_later_than_its_cause_and_never_earlier_with_more_fuel(
    begun: Tag, fuel: int, quantum: int, delay: int
) -> None:
    effect = tags.effect_tag(begun, fuel, quantum, delay)
    assert begun < effect <= tags.effect_tag(begun, fuel + 1, quantum, delay)
    assert effect[1] < tags.MICROSTEPS_MAX


def test_a_tag_is_printed_with_a_dot() -> None:
    assert tags.text((12, 3)) == "12.3"


def test_no_reachable_step_is_infinite() -> None:
    assert tags.INFINITE_STEP > 2**48 + 2**40
