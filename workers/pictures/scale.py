"""Scales: from values to pixels, with marks at round numbers, and numbers as people read them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeGuard

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
DIGITS = 4  # Significant digits of a figure: more would be noise.

Kind = Literal["linear", "log2", "log10"]


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis.

    Attributes:
        low: Value at its beginning.
        high: Value at its end, not below ``low``.
        start: Pixel of its beginning.
        end: Pixel of its end.
        kind: Logarithmic ones want values above 0; what is not lies at the beginning.
    """

    low: float
    high: float
    start: float
    end: float
    kind: Kind = "linear"

    def at(self, value: float) -> float:
        """The pixel of a value; what is outside lies at the edge."""
        low, high = self._measure(self.low), self._measure(self.high)
        share = (self._measure(value) - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)

    def _measure(self, value: float) -> float:
        if self.kind == "linear":
            return value
        return math.log2(value if value > 0 else self.low)


def ticks(low: float, high: float) -> list[float]:
    """Some round numbers that enclose a range, evenly spaced."""
    spread = max(high - low, abs(high) * 0.02, 1e-9)
    scale = 10.0 ** math.floor(math.log10(spread / 4))
    step = next(scale * s for s in STEPS if scale * s * 5 >= spread)
    first = math.floor(low / step)
    return [round(n * step, 10) for n in range(first, math.ceil(high / step) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Of 1, 2, 5, 10, ... those that enclose a range above 0."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    marks = [float(f"{step}e{n}") for n in range(first, last + 1) for step in (1, 2, 5)]
    below = [mark for mark in marks if mark <= low] or marks[:1]
    above = [mark for mark in marks if mark >= high] or marks[-1:]  # The logarithm was rounded.
    return [mark for mark in marks if below[-1] <= mark <= above[0]]


def finite(values: Iterable[object]) -> list[float]:
    """Those that are numbers to draw."""
    return [float(v) for v in values if is_number(v)]


def is_number(value: object) -> TypeGuard[float]:
    """Whether it can be drawn: no NaN, no infinity, nothing that is no number or beyond a float."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def figure(value: object) -> str:
    """A number in groups of three; what is not whole with `DIGITS` digits; a dash for none."""
    if not is_number(value):
        return "\u2013"
    if isinstance(value, int):
        return f"{value:,}"
    rounded = float(f"{value:.{DIGITS}g}")
    if rounded and (abs(rounded) < 1e-4 or abs(rounded) >= 1e15):
        return f"{rounded:g}"
    return f"{rounded:,.10f}".rstrip("0").rstrip(".")


def seconds(value: object) -> str:
    """A length of time in the unit in which it is read best."""
    if not is_number(value):
        return figure(value)
    size = abs(value)
    unit, factor = next(
        ((u, f) for u, f in (("s", 1.0), ("ms", 1e3)) if size * f >= 1), ("\u00b5s", 1e6)
    )
    return f"{figure(value * factor)} {unit}" if size else "0 s"
