"""The draw: a token in proportion to exp(l / T), by proposal and acceptance.

What exp((l - most) / T) is to 15 digits need be known of the one token that is drawn, not of all.
So a token is proposed in proportion to an upper bound that is quick to compute, and accepted with
the probability exp / bound; else another one is proposed (von Neumann, *Various techniques used in
connection with random digits*, 1951). What is accepted has exactly the distribution of exp, however
loose the bound; the tighter it is, the fewer are refused: here about one in twenty.

The bound: with n = round(128 * t) and t = (l - most) * log2(e) / T, n is read as a float32 whose
exponent is n's whole part and whose mantissa is the rest. Between two powers of two that is a
straight line, which lies above 2^t by 6 % at most. One more of n covers what rounding may take: a
half, and three roundings of t of 2^-24 each, 2^-10 of n where it counts. What is below
2^-24 of the largest counts as that: refused nearly always, and exactly as often as it should be.
Where that is most of a row, as with models that know what to say, only the others are computed.

Every bound is a whole number from 2^7 to 2^31 + 2^24, so that their sums are exact (weights.py).
float32 ``-``, ``*``, ``+`` and maximum, and a shift, on whole arrays: the same bits on every CPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from lockstep.workers.inference.cut import reaching
from lockstep.workers.inference.exact import LOG2_E, Floats, Floats32, exp_of
from lockstep.workers.inference.weights import BLOCK, GROUP, group_sums, pick

STEP_BITS = 7  # Of n, below a power of two.
RANGE = 24  # Powers of two from the least bound to that of the largest logit.
LEAST_BITS = 7  # The least bound is 2^7, so that all are whole.
LEAST = float(1 << LEAST_BITS)
FAR = 1.0 / (1 << RANGE + 1)  # What has less than this share of the largest has the least bound.
LARGEST = float(1 << LEAST_BITS + RANGE)  # What a bound would be if it were tight at the largest.
# A float32 beyond 2^23 is a whole number in its low bits: adding this rounds, and leaves there the
# upper half of the float32 that is meant, 2^7 for n = 0.
ROUNDING = float((3 << 22) + (LEAST_BITS + 127 << STEP_BITS))
HIGHEST = ROUNDING + (RANGE << STEP_BITS) + 1
HALF_BITS = 16
FLOOR = np.full(BLOCK, ROUNDING, np.float32)  # As `weights.FLOOR`.
PROPOSALS_MAX = 64  # One in twenty is refused: nobody will ever see as many.

Uniforms = Callable[[int], float]  # Draw number -> in [0, 1), of 53 bits.


def drawn(logits: Floats32, temperature: float, uniforms: Uniforms) -> int:
    """The place of the token that is drawn.

    Args:
        logits: float32 of shape (n,), no NaN, the largest one finite.
        temperature: At least `sampling.TEMPERATURE_LEAST`.
        uniforms: Two for each proposal: the first proposes, the second accepts.
    """
    most = logits.max()
    bounds, sums = summed(logits, most, temperature)
    place = 0
    for proposal in range(PROPOSALS_MAX):
        place = pick(bounds, uniforms(2 * proposal), sums)
        wanted = exp_of((float(logits[place]) - float(most)) / temperature) * LARGEST
        if uniforms(2 * proposal + 1) * float(bounds[place]) < wanted:
            break
    return place


def summed(logits: Floats32, most: Any, temperature: float) -> tuple[Floats32, Floats]:
    """`bound` of a row, and its `group_sums`."""
    ids = reaching(logits, most, temperature, FAR)
    if ids is None:
        bounds = bound(logits, most, temperature)
        return bounds, group_sums(bounds)
    near = bound(logits[ids], most, temperature)
    bounds = np.full(logits.size, LEAST, np.float32)
    bounds[ids] = near
    sums = np.full(-(-logits.size // GROUP), GROUP * LEAST)
    sums[-1] -= -logits.size % GROUP * LEAST
    sums += np.bincount(ids // GROUP, near.astype(np.float64) - LEAST, sums.size)
    return bounds, sums


def bound(logits: Floats32, most: Any, temperature: float) -> Floats32:
    """Upper bounds of 2^31 * exp((l - most) / T), whole numbers; ``most``: none exceeds it."""
    bounds = np.empty_like(logits)
    scale = np.float32(LOG2_E * (1 << STEP_BITS) / temperature)
    with np.errstate(over="ignore"):  # -inf is as good as anything far below.
        for start in range(0, logits.size, BLOCK):
            n = np.subtract(logits[start : start + BLOCK], most)
            n *= scale
            n += HIGHEST
            np.maximum(n, FLOOR[: n.size], out=bounds[start : start + BLOCK])
    bits = bounds.view(np.uint32)
    bits <<= np.uint32(HALF_BITS)
    return bounds
