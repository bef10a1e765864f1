"""Counter-based randomness: known answers for ever, because journals replay for ever."""

from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine import keyed

STREAM = keyed.key(7, "order", "agents")
COUNTERS = st.tuples(*[st.integers(0, 2**64 - 1)] * 4)


def test_keys_are_the_known_ones() -> None:
    assert STREAM.hex() == "034831846861f2a8daaf16db6fdee14b1581e3735df9952d97f6fd22c3da7ad7"
    assert (
        keyed.key(0, "", "").hex()
        == "8b4aae070740471e38ea702dcc60c32d53772301e91b221f0bbd2ee0fe5bbfab"
    )


def test_draws_are_the_known_ones() -> None:
    assert keyed.draw(STREAM) == 10_807_056_511_095_832_140
    assert keyed.draw(STREAM, 1, 2, 3, 4) == 14_443_634_287_624_040_898
    assert keyed.draw(STREAM, 2**64 - 1) == 15_432_040_351_513_051_843


@given(COUNTERS, st.lists(st.integers(0, 2**64 - 1), max_size=5))
def test_draws_made_together_are_those_made_one_by_one(a: tuple[int, ...], of: list[int]) -> None:
    assert keyed.draws(STREAM, *a[:2], of) == [keyed.draw(STREAM, *a[:2], one) for one in of]


def test_uniform_draws_are_the_known_ones() -> None:
    assert keyed.uniform(STREAM, 1, 2, 3, 4).hex() == "0x1.90e431b7c6f76p-1"


def test_fill_gives_the_known_bytes() -> None:
    assert keyed.fill(STREAM, 5, 8).hex() == "0c4c0f6e7122e1b0"


def test_every_part_of_a_key_counts() -> None:
    keys = [keyed.key(*k) for k in [(1, "a", "b"), (2, "a", "b"), (1, "b", "b"), (1, "a", "c")]]
    assert len(dict.fromkeys(keys)) == 4


@given(COUNTERS, COUNTERS)
def test_different_counters_give_different_draws(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    assert (keyed.draw(STREAM, *a) == keyed.draw(STREAM, *b)) == (a == b)


@given(COUNTERS)
def test_uniform_is_the_draw_scaled_and_below_one(counters: tuple[int, ...]) -> None:
    value = keyed.uniform(STREAM, *counters)
    assert 0.0 <= value < 1.0
    assert int(value * 2**53) == keyed.draw(STREAM, *counters) >> 11


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_longer_fill_begins_with_the_shorter(a: int, b: int) -> None:
    short, long = sorted((a, b))
    assert len(keyed.fill(STREAM, 1, short)) == short
    assert keyed.fill(STREAM, 1, long)[:short] == keyed.fill(STREAM, 1, short)
