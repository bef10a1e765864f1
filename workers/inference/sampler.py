"""The sampler: from a row of logits to a token, with the same bits on every machine.

np.exp and np.log pick their code by CPU and differ in their last bits (4.6 % of values between
AVX-512 and AVX2), so neither is used. `exp` is made of operations that IEEE 754 defines to the
last bit, in a fixed order: float64 + - * on whole arrays, rint and ldexp.

Why that is enough. numpy runs ``+``, ``-`` and ``*`` as separate loops over memory, so no
compiler can fuse a multiplication and an addition across them, and each is correctly rounded on
every IEEE machine; vector width cannot matter, because no loop here adds up elements. rint is
exact. ldexp is exact while the result is normal, and rounds once, correctly, below that. The only
sum over elements is the running one, `np.add.accumulate`, which is sequential by definition.

The method: x = k * ln 2 + r with |r| <= 0.3466, exp(x) = 2^k * exp(r), and exp(r) by its Taylor
polynomial of degree 13 in Horner's order; the first omitted term is below 5e-18. ln 2 is split in
two parts of which the first has 33 bits, so that k * LN2_HIGH and the subtraction from x are exact
for |k| < 2^20.
"""

from typing import Any

import numpy as np

LOG2_E = float.fromhex("0x1.71547652b82fep+0")
LN2_HIGH = float.fromhex("0x1.62e42feep-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
# 1/n! for n = 13 .. 2, correctly rounded: int / int is, in Python.
FACTORIALS = (
    6227020800, 479001600, 39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2,
)  # fmt: skip
COEFFICIENTS = tuple(1 / number for number in FACTORIALS)
X_MIN = -746.0  # exp of it is 0; below it nothing is looked at.
X_MAX = 709.0  # exp of it is finite.
BLOCK = 16384  # Values worked on at a time, so that they stay in the cache; changes no bit.

Floats = np.ndarray[Any, np.dtype[np.float64]]


def exp(x: Floats) -> Floats:
    """e to the power of ``x``, elementwise, for ``x`` of at most `X_MAX`.

    Args:
        x: float64 of shape (n,), no NaN. Everything below `X_MIN` gives 0.

    Returns:
        float64 of the same shape; relative error below 1e-15 where the result is normal.
    """
    result = np.empty_like(x)
    for start in range(0, x.size, BLOCK):
        stop = start + BLOCK
        _exp_block(x[start:stop], result[start:stop])
    return result


def _exp_block(x: Floats, result: Floats) -> None:
    x = np.maximum(x, X_MIN)
    k = np.multiply(x, LOG2_E)
    np.rint(k, out=k)
    product = np.multiply(k, LN2_HIGH)
    r = np.subtract(x, product, out=x)
    np.multiply(k, LN2_LOW, out=product)
    r -= product
    np.multiply(r, COEFFICIENTS[0], out=result)
    for coefficient in COEFFICIENTS[1:]:
        result += coefficient
        result *= r
    result += 1.0
    result *= r
    result += 1.0
    np.ldexp(result, k.astype(np.int32), out=result)


def choose(logits: np.ndarray[Any, Any], temperature: float, uniform: float) -> int:
    """The next token.

    Args:
        logits: Finite float32 of shape (vocab,).
        temperature: 0 takes the largest logit, the lowest id among equals.
        uniform: In [0, 1); not looked at for temperature 0.

    Returns:
        The first id whose running sum of exp((l - max) / T) exceeds ``uniform`` times the total.
    """
    if temperature == 0:
        return int(np.argmax(logits))  # The first of several: that is documented.
    largest = np.float64(logits.max())
    running = np.empty(logits.size)
    before = 0.0
    for start in range(0, logits.size, BLOCK):
        x = logits[start : start + BLOCK].astype(np.float64)
        x -= largest
        with np.errstate(over="ignore"):  # A tiny temperature makes -inf of it, which is right.
            x /= temperature
        part = running[start : start + BLOCK]
        _exp_block(x, part)
        part[0] += before  # So the sum is one sequential sum, whatever the blocks.
        np.add.accumulate(part, out=part)
        before = part[-1]
    total = running[-1]
    token = int(np.searchsorted(running, uniform * total, side="right"))
    if token == running.size:  # uniform * total was rounded up to the total itself.
        token = int(np.searchsorted(running, total, side="left"))
    return token


def finite(logits: np.ndarray[Any, Any]) -> bool:
    """Whether a row has no NaN and no infinity."""
    return bool(np.isfinite(logits).all())
