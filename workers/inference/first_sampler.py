"""The first sampler: how runs without the logic flag PROPOSALS choose tokens, for ever.

Weights are float64 and their running sum, in order of ids, decides the draw; shares of top_p are
counted in whole units of 2^-(52 - b) of the largest weight, b the bits of the vocabulary's size.
Such a run is verified and resumed by this; sampler.py and cut.py say how others do it.
"""

from typing import Any

import numpy as np

from lockstep.workers.inference.cut import floor, largest, nucleus
from lockstep.workers.inference.exact import Floats, Floats32, exp, running_weights, scaled
from lockstep.workers.inference.proposal import Uniforms
from lockstep.workers.inference.sampling import Sampling


def draw(logits: Floats32, sampling: Sampling, uniforms: Uniforms) -> int:
    """As `sampler.draw`; one uniform is enough."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    if not sampling.cuts:
        return first_above(running_weights(logits, sampling.temperature), uniforms(0))
    ids, weights = survivors(logits, sampling)
    return int(ids[first_above(np.add.accumulate(weights), uniforms(0))])


def total_of(logits: Floats32) -> float:
    """As `logprobs.total_of`."""
    return float(running_weights(logits, 1.0)[-1])


def first_above(running: Floats, uniform: float) -> int:
    """The first place whose running sum exceeds ``uniform`` times the last one."""
    total = running[-1]
    place = int(np.searchsorted(running, uniform * total, side="right"))
    if place == running.size:  # uniform * total was rounded up to the total itself.
        place = int(np.searchsorted(running, total, side="left"))
    return place


def survivors(logits: Floats32, sampling: Sampling) -> tuple[np.ndarray[Any, Any], Floats]:
    """The ids that are left, ascending, and their weights exp((l - max) / T)."""
    ids = np.arange(logits.size)
    if 0 < sampling.top_k < logits.size:
        ids = largest(logits, sampling.top_k)
    elif sampling.top_p == 1 and sampling.min_p > 0:
        ids = np.flatnonzero(logits >= floor(logits.max(), sampling.temperature, sampling.min_p))
    left = logits[ids]
    weights = exp(scaled(left, left.max(), sampling.temperature))
    keep = np.ones(left.size, bool)
    if sampling.top_p < 1:
        counted = np.floor(weights * units(logits.size))
        keep = nucleus(left, counted, sampling.temperature, sampling.top_p)
    if sampling.min_p > 0:
        keep &= weights >= sampling.min_p  # The largest one's is exactly 1.
    return ids[keep], weights[keep]


def units(vocab: int) -> float:
    """Units that the largest probability has: a power of two, so that all sums stay below 2^52."""
    return float(1 << 52 - vocab.bit_length())
