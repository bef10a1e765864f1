"""exp and log of our own, with the same bits on every machine: what sampling decides by.

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

log(y) with y = 2^e * m, m in [sqrt(1/2), sqrt(2)): e * ln 2 + 2 * artanh(s), s = (m - 1) / (m + 1),
|s| <= 0.1716, artanh by its series up to s^19; the first omitted term is below 5e-18.
"""

import math
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
SQRT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")
ODD = (19, 17, 15, 13, 11, 9, 7, 5, 3)
X_MIN = -746.0  # exp of it is 0; below it nothing is looked at.
X_MAX = 709.0  # exp of it is finite.
BLOCK = 16384  # Values worked on at a time, so that they stay in the cache; changes no bit.

Floats = np.ndarray[Any, np.dtype[np.float64]]
Floats32 = np.ndarray[Any, np.dtype[np.float32]]


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
        exp_block(x[start:stop], result[start:stop])
    return result


def exp_block(x: Floats, result: Floats) -> None:
    """`exp` of at most `BLOCK` values, into ``result``."""
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


def exp_of(x: float) -> float:
    """`exp` of one number, with the same bits."""
    if x < X_MIN:
        return 0.0
    k = round(x * LOG2_E)
    r = x - k * LN2_HIGH - k * LN2_LOW
    value = r * COEFFICIENTS[0]
    for coefficient in COEFFICIENTS[1:]:
        value = (value + coefficient) * r
    return math.ldexp((value + 1.0) * r + 1.0, k)


def log(y: float) -> float:
    """The natural logarithm of one number, 0 < ``y`` < inf; error below 2e-15 * (1 + |log y|).

    Python's floats are IEEE float64 and each operation of them is rounded by itself.
    """
    m, e = math.frexp(y)  # Exact; m in [0.5, 1).
    if m < SQRT_HALF:
        m, e = m * 2, e - 1
    s = (m - 1) / (m + 1)
    square = s * s
    series = 0.0
    for number in ODD:
        series = (series + 1 / number) * square
    return e * LN2_HIGH + (e * LN2_LOW + (2 * s + 2 * s * series))


def scaled(logits: Floats32, largest: Any, temperature: float) -> Floats:
    """(l - largest) / T in float64, for a ``largest`` that none exceeds: at most 0."""
    x = logits.astype(np.float64)
    x -= np.float64(largest)
    with np.errstate(over="ignore"):  # A tiny temperature makes -inf of it, which is right.
        x /= temperature
    return x


def running_weights(logits: Floats32, temperature: float) -> Floats:
    """Running sums of exp((l - max) / T), in order of ids; the last one is the total.

    Args:
        logits: float32 of shape (vocab,), no NaN, the largest one finite.
        temperature: More than 0.
    """
    largest = logits.max()
    running = np.empty(logits.size)
    before = 0.0
    for start in range(0, logits.size, BLOCK):
        part = running[start : start + BLOCK]
        exp_block(scaled(logits[start : start + BLOCK], largest, temperature), part)
        part[0] += before  # So the sum is one sequential sum, whatever the blocks.
        np.add.accumulate(part, out=part)
        before = part[-1]
    return running
