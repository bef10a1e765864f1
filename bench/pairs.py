"""Pairs: two contestants in short alternating rounds, and what their ratios say.

Absolute times move with whatever else the machine does; the ratio of two rounds that lie side by
side moves less. So a ratio is never made of two separate measurements: each comes from one pair,
and who goes first alternates, because the first of a pair finds other caches than the second.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import comb
from statistics import median
from typing import NamedTuple

CONFIDENCE = 0.95
PAIRS_MIN = 6  # With fewer, no two order statistics enclose the median with this confidence.

Round = Callable[[], float]


class Ratio(NamedTuple):
    """Median of paired ratios and the interval that encloses it; above 1: Lockstep is better."""

    median: float
    low: float
    high: float


def interleave(ours: Round, theirs: Round, pairs: int) -> Iterator[tuple[float, float]]:
    """Measure in pairs, who is first in turn.

    Args:
        ours: Measures one round of Lockstep.
        theirs: Measures one round of the other.
        pairs: How many.

    Yields:
        (ours, theirs) of each pair.
    """
    for number in range(pairs):
        if number % 2:
            other = theirs()
            yield ours(), other
        else:
            own = ours()
            yield own, theirs()


def rotate(rounds: Sequence[Round], times: int) -> Iterator[tuple[float, ...]]:
    """As `interleave` for any number of contestants: who is first goes round.

    Args:
        rounds: Measure one round of each.
        times: How many of each.

    Yields:
        One figure of each, in the order of ``rounds``.
    """
    count = len(rounds)
    for number in range(times):
        order = [(number + place) % count for place in range(count)]
        figures = {which: rounds[which]() for which in order}
        yield tuple(figures[which] for which in range(count))


def ratio(values: Sequence[float]) -> Ratio:
    """Median and interval of paired ratios.

    The interval is between order statistics, so that it assumes nothing about the distribution
    and needs no chance: the true median lies below the k-th smallest of n values with the
    probability of fewer than k heads in n throws.

    Args:
        values: One ratio per pair, `PAIRS_MIN` at least.

    Raises:
        ValueError: too few values.
    """
    ordered = sorted(values)
    rank = interval_rank(len(ordered))
    return Ratio(median(ordered), ordered[rank], ordered[-1 - rank])


def paired(values: Sequence[float]) -> Ratio:
    """As `ratio`; of too few pairs for an interval, their range."""
    if len(values) < PAIRS_MIN:
        return Ratio(median(values), min(values), max(values))
    return ratio(values)


def interval_rank(count: int) -> int:
    """How many values to leave out at either end for an interval of `CONFIDENCE`.

    Raises:
        ValueError: there is no such interval.
    """
    if count < PAIRS_MIN:
        raise ValueError(f"{count} pairs, an interval of {CONFIDENCE:.0%} needs {PAIRS_MIN}")
    tails = accumulate(comb(count, heads) / 2.0**count for heads in range(count // 2))
    return sum(2 * tail <= 1 - CONFIDENCE for tail in tails) - 1


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of the values do not exceed (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a percentile of no values")
    ordered = sorted(values)
    rank = -(-len(ordered) * round(share * 1000) // 1000)  # Rounded up, without a float's error.
    return ordered[max(rank, 1) - 1]
