"""Pairs alternate, and intervals are those of order statistics."""

from math import comb

import pytest

from lockstep.bench.pairs import (
    CONFIDENCE,
    PAIRS_MIN,
    Ratio,
    interleave,
    interval_rank,
    percentile,
    ratio,
    rotate,
)


def test_who_is_first_alternates() -> None:
    called: list[str] = []
    ours = lambda: called.append("ours") or 1.0  # type: ignore[func-returns-value]  # noqa: E731
    theirs = lambda: called.append("theirs") or 2.0  # type: ignore[func-returns-value]  # noqa: E731
    assert list(interleave(ours, theirs, 3)) == [(1.0, 2.0)] * 3
    assert called == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]


def test_of_several_contestants_each_is_first_in_turn() -> None:
    called: list[int] = []

    def contestant(number: int) -> float:
        called.append(number)
        return float(number)

    rounds = [lambda number=number: contestant(number) for number in range(3)]
    assert list(rotate(rounds, 4)) == [(0.0, 1.0, 2.0)] * 4
    assert called == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]


@pytest.mark.parametrize(("count", "rank"), [(6, 0), (8, 0), (9, 1), (12, 2), (41, 13)])
def test_the_interval_leaves_out_what_tables_of_order_statistics_say(count: int, rank: int) -> None:
    assert interval_rank(count) == rank


@pytest.mark.parametrize("count", range(PAIRS_MIN, 60))
def test_the_interval_covers_enough_and_a_narrower_one_would_not(count: int) -> None:
    def covered(rank: int) -> float:
        return 1 - 2 * sum(comb(count, k) for k in range(rank + 1)) / 2**count

    rank = interval_rank(count)
    assert covered(rank) >= CONFIDENCE > covered(rank + 1)


def test_a_ratio_is_the_median_with_its_interval_in_any_order_of_pairs() -> None:
    values = [3.0, 1.0, 2.0, 9.0, 5.0, 4.0, 8.0, 7.0, 6.0]
    assert ratio(values) == Ratio(5.0, 2.0, 8.0)


def test_too_few_pairs_have_no_interval() -> None:
    with pytest.raises(ValueError, match="5 pairs, an interval of 95% needs 6"):
        ratio([1.0] * 5)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
