"""Weights: how likely each token is beside the likeliest, whose weight is 2^32, in whole numbers.

A token's weight is 2^32 * exp((l - most) / T), rounded to a whole number. Sums of whole numbers
below 2^53 are exact in float64, in any order and however they are divided. So neither the width of
a CPU's vectors nor the way that a draw, a share or a total is computed can change a bit, and ids
that have no weight may be left out beforehand.

A weight itself has the same bits on every CPU: float32 ``-``, ``*``, ``+``, maximum and rint on
whole arrays. IEEE 754 defines each to the last bit; numpy runs each as a loop of its own over
memory, so that no compiler can fuse two of them, and no element meets another one. Nothing is
subnormal, so it does not matter whether those are flushed to zero. The power of two is added to
the exponent's bits, as a whole number.

The method: t = (l - most) * (log2(e) / T), t = k + f with whole k and |f| <= 1/2, which is exact;
2^f is a polynomial of degree 5 with the value 1 at 0 (so the largest logit has exactly 2^32), with
an error of 1e-7. What counts is the rounding of t, |t| * 2^-23 * ln 2 of the weight at most, which
is 3e-6 for the least, and the half that every weight is rounded by.
"""

from typing import Any

import numpy as np

from lockstep.workers.inference.exact import LOG2_E, Floats, Floats32

LARGEST_BITS = 32
LARGEST = float(1 << LARGEST_BITS)  # The largest logit's weight.
NOTHING = 0.5 / LARGEST  # Half a unit: that share of it, and less, is no weight.
T_LEAST = -40.0  # Below all that counts, and far from the end of float32's range.
# Of 2^f, times LARGEST: least of the largest relative errors on [-1/2, 1/2], then rounded.
COEFFICIENTS = tuple(
    float.fromhex(digits)
    for digits in ("0x1.5bba14p+22", "0x1.3cea88p+25", "0x1.c6b752p+27", "0x1.ebf9bcp+29",
                   "0x1.62e42ap+31")
)  # fmt: skip
MANTISSA_BITS = 23
UNIFORM_BITS = 53
UNIFORM_ONE = float(1 << UNIFORM_BITS)
BLOCK = 24576  # Values worked on at a time, so that they stay in the cache; changes no bit.
FLOOR = np.full(BLOCK, T_LEAST, np.float32)  # For a number numpy's maximum has a slow loop.
GROUP = 512  # Of which there is one sum; changes no bit.


def weigh(logits: Floats32, most: Any, temperature: float) -> Floats32:
    """The weight of each logit.

    Args:
        logits: float32 of shape (n,), no NaN.
        most: The largest of the row, finite; none exceeds it.
        temperature: At least `sampling.TEMPERATURE_LEAST`.

    Returns:
        float32 of the same shape: whole numbers from 0 to `LARGEST`.
    """
    weights = np.empty_like(logits)
    scale = np.float32(LOG2_E / temperature)
    with np.errstate(over="ignore"):  # What is beyond float32's range has no weight.
        for start in range(0, logits.size, BLOCK):
            stop = start + BLOCK
            _weigh(logits[start:stop], most, scale, weights[start:stop])
    return weights


def _weigh(logits: Floats32, most: Any, scale: Any, weights: Floats32) -> None:
    """`weigh` of at most `BLOCK` values, into ``weights``."""
    t = np.subtract(logits, most)
    t *= scale
    np.maximum(t, FLOOR[: t.size], out=t)
    k = np.rint(t)
    t -= k
    np.multiply(t, COEFFICIENTS[0], out=weights)
    for coefficient in COEFFICIENTS[1:]:
        weights += coefficient
        weights *= t
    weights += LARGEST
    exponents = k.astype(np.int32).view(np.uint32)
    exponents <<= np.uint32(MANTISSA_BITS)
    bits = weights.view(np.uint32)
    bits += exponents  # Negative ones wrap around, as they should.
    np.rint(weights, out=weights)


def pick(weights: Floats32, uniform: float, sums: Floats | None = None) -> int:
    """The first place whose running sum of weights exceeds ``uniform`` times the total.

    Args:
        weights: Whole numbers, not all 0, whose sum is below 2^53.
        uniform: In [0, 1), a multiple of 2^-53. The product is rounded down, exactly.
        sums: Their `group_sums`, where these are known.
    """
    running = np.add.accumulate(group_sums(weights) if sums is None else sums)
    drawn = int(uniform * UNIFORM_ONE) * int(running[-1]) >> UNIFORM_BITS
    group = int(running.searchsorted(float(drawn), "right"))
    if group:
        drawn -= int(running[group - 1])
    inside = np.add.accumulate(weights[group * GROUP :][:GROUP], dtype=np.float64)
    return group * GROUP + int(inside.searchsorted(float(drawn), "right"))


def group_sums(weights: Floats32) -> Floats:
    """Sums of each `GROUP` of weights in turn; the last may be of fewer."""
    starts = np.arange(0, weights.size, GROUP)
    return np.add.reduceat(weights, starts, dtype=np.float64)


def total(weights: Floats32) -> float:
    """The sum of all weights, exact; in units of the largest logit's it is at least 1."""
    return float(np.add.reduce(weights, dtype=np.float64)) / LARGEST
