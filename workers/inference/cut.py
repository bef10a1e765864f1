"""Cuts: which token ids are left to draw from under top_k, top_p and min_p.

All three go by one order: larger logits first, lower ids first among equals. Nothing sorts the
vocabulary. The k-th largest of the maxima of at least k groups is a bound below which none of the
k largest lies, so only what reaches it is sorted. Shares of top_p are sums of weights, which are
whole numbers (weights.py): exact in float64 in any order, so how the work is divided cannot change
a bit, and only the one narrow range of logits in which the share is reached is sorted.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from lockstep.workers.inference.exact import Floats32, log
from lockstep.workers.inference.sampling import Sampling
from lockstep.workers.inference.weights import LARGEST, NOTHING, weigh

GROUP_MAX = 64  # Logits of which one maximum is taken.
GROUPS_PER_K = 4  # More groups than k, so that few more than k logits reach the bound.
SORTED_MAX = 2048  # So many are sorted as they are.
BINS = 1024  # Ranges of logits, from the largest to the least that has a weight.
BINS_TEMPERATURES = 23.0  # At most so many temperatures wide: exp(-23) is no weight.
BINS_SCALE_MAX = 1e30  # Of tiny widths: 0 times it is still 0.
LOGIT_LEAST = float(np.finfo(np.float32).min)
MOST_PICKED = 0.25  # Of a row: to weigh more than that, all of it is weighed, as it lies.
SAMPLED = 256  # One logit of so many tells how many that will be.

Ids = np.ndarray[Any, np.dtype[np.int64]]

_log = lru_cache(maxsize=64)(log)  # Of shares, which are few: a request's, and our own.


def survivors(logits: Floats32, sampling: Sampling) -> Ids | None:
    """The ids that are left, ascending; None: all.

    Args:
        logits: float32 of shape (vocab,), no NaN, the largest one finite.
        sampling: With a temperature of at least `TEMPERATURE_LEAST`.
    """
    most, temperature, ids = logits.max(), sampling.temperature, None
    if 0 < sampling.top_k < logits.size:
        ids = largest(logits, sampling.top_k)
    if sampling.top_p == 1 and sampling.min_p == 0:
        return ids
    if ids is None:
        # What min_p alone cuts off; where top_p counts shares, that is what has none.
        ids = reaching(logits, most, temperature, sampling.min_p if sampling.top_p == 1 else 0.0)
    left = logits if ids is None else logits[ids]
    weights = weigh(left, most, temperature)
    keep = np.ones(left.size, bool)
    if sampling.top_p < 1:
        keep = nucleus(left, weights, temperature, sampling.top_p)
    if sampling.min_p > 0:
        keep &= weights.astype(np.float64) >= sampling.min_p * LARGEST
    places = np.flatnonzero(keep)
    return places if ids is None else ids[places]


def reaching(logits: Floats32, most: Any, temperature: float, share: float) -> Ids | None:
    """Ids that have this share of the largest one's weight, or any, and few more; None: many.

    How many is guessed from a sample: where the guess is wrong it only takes longer.
    """
    least = floor(most, temperature, max(share, NOTHING))
    sample = logits[::SAMPLED]
    if np.count_nonzero(sample >= least) > MOST_PICKED * sample.size:
        return None
    return np.flatnonzero(logits >= least)


def largest(logits: Floats32, count: int) -> Ids:
    """The ids of the ``count`` largest logits, ascending; lower ids first among equals."""
    ids = np.flatnonzero(logits >= _bound(logits, count))
    return np.sort(in_order(logits, ids)[:count])


def in_order(logits: Floats32, ids: Ids) -> Ids:
    """Ascending ids, larger logits first; a stable sort keeps equals as they are."""
    return ids[np.argsort(-logits[ids], kind="stable")]


def _bound(logits: Floats32, count: int) -> Any:
    """A value that at least ``count`` logits reach, and few more."""
    size = min(GROUP_MAX, logits.size // (GROUPS_PER_K * count))
    maxima = logits
    if size > 1:
        groups = logits.size // size
        # Group g is g, g + groups, ...: any division will do, and this one is a quick maximum of
        # whole rows. The few logits behind the last row belong to none.
        maxima = logits[: size * groups].reshape(size, groups).max(axis=0)
    place = maxima.size - count
    return np.partition(maxima, place)[place]  # A value has no ties to break.


def floor(most: Any, temperature: float, share: float) -> np.float32:
    """A logit below which none has this share of the largest one's weight; the weights decide.

    Lower than need be by a thousandth of that share, which covers every rounding of a weight, and
    by more than a float32 of the logits' size is rounded.
    """
    low = float(most) + temperature * (_log(share) - 1e-3)
    return np.float32(max(low - 1e-6 * (abs(low) + abs(float(most))), LOGIT_LEAST))


def nucleus(logits: Floats32, weights: Any, temperature: float, top_p: float) -> Any:
    """Mask of the fewest first logits, in order, that have the share ``top_p`` of all weights.

    Args:
        logits: Of shape (n,).
        weights: Of the same shape: whole numbers, whose sum is below 2^53.
        temperature: By which they were weighed.
        top_p: Above 0, below 1.
    """
    numerator, denominator = top_p.as_integer_ratio()
    total = int(np.add.reduce(weights, dtype=np.float64))
    wanted = -(-total * numerator // denominator)  # Rounded up, exactly.
    keep = np.zeros(logits.size, bool)
    ids = _enough(logits, weights, temperature, (1 - top_p) / logits.size, wanted)
    while ids.size > SORTED_MAX:
        bins = _bins(logits[ids], temperature)
        sums = np.add.accumulate(np.bincount(bins, weights[ids], BINS))
        last = int(sums.searchsorted(wanted))
        inside = bins == last
        if inside.all():  # Equals.
            break
        keep[ids[bins < last]] = True
        wanted -= int(sums[last - 1]) if last else 0
        ids = ids[inside]
    ordered = in_order(logits, ids)
    shares = np.add.accumulate(weights[ordered], dtype=np.float64)
    keep[ordered[: int(shares.searchsorted(wanted)) + 1]] = True
    return keep


def _enough(logits: Floats32, weights: Any, temperature: float, share: float, wanted: int) -> Ids:
    """The first ids, in order of ids, that have so much together; all, where that is not few."""
    if logits.size > SORTED_MAX:
        ids = reaching(logits, logits.max(), temperature, share)
        if ids is not None and np.add.reduce(weights[ids], dtype=np.float64) >= wanted:
            return ids
    return np.arange(logits.size)


def _bins(logits: Floats32, temperature: float) -> Any:
    """Ranges of logits by number, the largest ones' 0: the larger a logit, the lower its number."""
    with np.errstate(over="ignore"):
        behind = np.subtract(logits.max(), logits)
        width = min(float(behind.max()), temperature * BINS_TEMPERATURES)
        behind *= np.float32(min(BINS / width, BINS_SCALE_MAX) if width else 0)
    np.minimum(behind, np.float32(BINS - 1), out=behind)
    return behind.astype(np.int64)
