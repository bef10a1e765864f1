"""Cuts: which token ids are left to draw from under top_k, top_p and min_p.

All three go by one order: larger logits first, lower ids first among equals. Nothing sorts the
vocabulary. The k-th largest of the maxima of at least k groups is a bound below which none of the
k largest lies, so only what reaches it is sorted. For top_p, probabilities are counted in whole
units of 1 / `units` of the largest one's: sums of whole numbers below 2^53 are exact in float64 in
any order, so how the work is divided cannot change a bit, and only the one narrow range of logits
in which the share is reached is sorted. What is below one unit counts as nothing there; together
that is less than 2^-16 of the largest probability for 262,144 tokens.
"""

from typing import Any

import numpy as np

from lockstep.workers.inference.exact import Floats, Floats32, exp, log, scaled
from lockstep.workers.inference.sampling import Sampling

GROUP_MAX = 64  # Logits of which one maximum is taken.
GROUPS_PER_K = 4  # More groups than k, so that few more than k logits reach the bound.
SORTED_MAX = 2048  # So many are sorted as they are.
BINS = 1024  # Ranges of logits, 1 / BINS_PER_UNIT of a temperature wide; the last one is open.
BINS_PER_UNIT = 16.0
LOGIT_LEAST = float(np.finfo(np.float32).min)

Ids = np.ndarray[Any, np.dtype[np.int64]]


def survivors(logits: Floats32, sampling: Sampling) -> tuple[Ids, Floats]:
    """The ids that are left, ascending, and their weights exp((l - max) / T).

    Args:
        logits: float32 of shape (vocab,), no NaN, the largest one finite.
        sampling: With a temperature above 0.
    """
    ids = None
    if 0 < sampling.top_k < logits.size:
        ids = largest(logits, sampling.top_k)
    elif sampling.top_p == 1 and sampling.min_p > 0:
        ids = np.flatnonzero(logits >= _floor(float(logits.max()), sampling))
    left = logits if ids is None else logits[ids]
    x = scaled(left, left.max(), sampling.temperature)
    weights = exp(x)
    keep = np.ones(left.size, bool)
    if sampling.top_p < 1:
        keep = _nucleus(left, x, weights, sampling.top_p, units(logits.size))
    if sampling.min_p > 0:
        keep &= weights >= sampling.min_p  # The largest one's is exactly 1.
    places = np.flatnonzero(keep)
    return places if ids is None else ids[places], weights[places]


def largest(logits: Floats32, count: int) -> Ids:
    """The ids of the ``count`` largest logits, ascending; lower ids first among equals."""
    ids = np.flatnonzero(logits >= _bound(logits, count))
    return np.sort(in_order(logits, ids)[:count])


def in_order(logits: Floats32, ids: Ids) -> Ids:
    """Ascending ids, larger logits first; a stable sort keeps equals as they are."""
    return ids[np.argsort(-logits[ids], kind="stable")]


def units(vocab: int) -> float:
    """Units that the largest probability has: a power of two, so that all sums stay below 2^52."""
    return 2.0 ** (52 - vocab.bit_length())


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


def _floor(most: float, sampling: Sampling) -> np.float32:
    """A logit below which none has the share ``min_p``; the weights decide about the rest.

    Lower than need be by a whole unit of temperature, which covers every rounding of a weight, and
    by more than a float32 of the logits' size is rounded.
    """
    low = most + sampling.temperature * (log(sampling.min_p) - 1)
    return np.float32(max(low - 1e-6 * (abs(low) + abs(most)), LOGIT_LEAST))


def _nucleus(logits: Floats32, x: Floats, weights: Floats, top_p: float, scale: float) -> Any:
    """Mask of the fewest first logits, in order, that have the share ``top_p`` of all units."""
    counted = np.floor(weights * scale)
    numerator, denominator = top_p.as_integer_ratio()
    wanted = -(-int(counted.sum()) * numerator // denominator)  # Rounded up, exactly.
    keep = np.zeros(logits.size, bool)
    range_ids: Ids = np.arange(logits.size) if logits.size <= SORTED_MAX else np.empty(0, np.int64)
    if logits.size > SORTED_MAX:
        bins = np.minimum(x * -BINS_PER_UNIT, BINS - 1).astype(np.int64)
        sums = np.add.accumulate(np.bincount(bins, counted, BINS))
        last = int(np.searchsorted(sums, wanted))
        keep = bins < last
        wanted -= int(sums[last - 1]) if last else 0
        range_ids = np.flatnonzero(bins == last)
    ordered = in_order(logits, range_ids)
    enough = int(np.searchsorted(np.add.accumulate(counted[ordered]), wanted)) + 1
    keep[ordered[:enough]] = True
    return keep
