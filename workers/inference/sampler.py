"""The sampler: from a row of logits to a token, with the same bits on every machine.

Weights come of workers/inference/exact.py; the one sum that decides is a running one, in order of
token ids, and `np.add.accumulate` is sequential by definition. Comparisons, maxima and sorts have
one answer each, where equals are put in order of token ids.
"""

from typing import Any

import numpy as np

from lockstep.workers.inference.cut import survivors
from lockstep.workers.inference.exact import Floats, Floats32, running_weights
from lockstep.workers.inference.sampling import Sampling


def choose(logits: Floats32, temperature: float, uniform: float) -> int:
    """The next token, of the whole vocabulary.

    Args:
        logits: float32 of shape (vocab,), no NaN, at least one finite.
        temperature: 0 takes the largest logit, the lowest id among equals.
        uniform: In [0, 1); not looked at for temperature 0.

    Returns:
        The first id whose running sum of exp((l - max) / T) exceeds ``uniform`` times the total.
    """
    if temperature == 0:
        return int(np.argmax(logits))  # The first of several: that is documented.
    return first_above(running_weights(logits, temperature), uniform)


def first_above(running: Floats, uniform: float) -> int:
    """The first place whose running sum exceeds ``uniform`` times the last one."""
    total = running[-1]
    place = int(np.searchsorted(running, uniform * total, side="right"))
    if place == running.size:  # uniform * total was rounded up to the total itself.
        place = int(np.searchsorted(running, total, side="left"))
    return place


def draw(logits: Floats32, sampling: Sampling, uniform: float) -> int:
    """The next token under all parameters that cut: temperature, top_k, top_p, min_p, then this.

    Args:
        logits: As of `choose`, penalties applied.
        sampling: Of the request.
        uniform: In [0, 1).

    Returns:
        As `choose`, over the ids that are left, in order of ids: so without a cut it is `choose`.
    """
    if sampling.temperature == 0 or not sampling.cuts:
        return choose(logits, sampling.temperature, uniform)
    ids, weights = survivors(logits, sampling)
    return int(ids[first_above(np.add.accumulate(weights), uniform)])


def likeliest(logits: Floats32) -> int | None:
    """The greedy token, or None if a logit is NaN or infinite.

    One pass finds the largest and every NaN and +inf with it (a NaN is the largest, for argmax), a
    second one -inf: 7 us for 49,152 logits, where `finite` alone takes 13.
    """
    token = int(np.argmax(logits))
    good = np.isfinite(logits[token]) and logits.min() > -np.inf
    return token if good else None


def finite(logits: np.ndarray[Any, Any]) -> bool:
    """Whether an array has no NaN and no infinity."""
    return bool(np.isfinite(logits).all())
