"""The sampler: from a row of logits to a token, with the same bits on every machine.

Weights and the bounds of a draw are whole numbers (weights.py, proposal.py), and so is every sum
that they are compared with. Comparisons, maxima and sorts have one answer each, where equals are
put in order of token ids.
"""

import math
from typing import Any

import numpy as np

from lockstep.workers.inference.cut import survivors
from lockstep.workers.inference.exact import Floats32
from lockstep.workers.inference.proposal import Uniforms, drawn
from lockstep.workers.inference.sampling import TEMPERATURE_LEAST, Sampling


def draw(logits: Floats32, sampling: Sampling, uniforms: Uniforms) -> int:
    """The next token under all parameters that cut: temperature, top_k, top_p, min_p, then this.

    Args:
        logits: float32 of shape (vocab,), no NaN, at least one finite; penalties applied.
        sampling: Of the request. A temperature below `TEMPERATURE_LEAST` takes the largest logit,
            the lowest id among equals.
        uniforms: Not asked for such a temperature.
    """
    if sampling.temperature < TEMPERATURE_LEAST:
        return int(np.argmax(logits))  # The first of several: that is documented.
    ids = survivors(logits, sampling)
    if ids is None:
        return drawn(logits, sampling.temperature, uniforms)
    return int(ids[drawn(logits[ids], sampling.temperature, uniforms)])


def likeliest(logits: Floats32) -> int | None:
    """The greedy token, or None if a logit is NaN or infinite.

    One pass finds the largest and every NaN and +inf with it (a NaN is the largest, for argmax), a
    second one -inf: 7 us for 49,152 logits, where `finite` alone takes 13.
    """
    token = int(logits.argmax())
    good = math.isfinite(logits[token]) and logits.min() > -math.inf
    return token if good else None


def finite(logits: np.ndarray[Any, Any]) -> bool:
    """Whether an array has no NaN and no infinity."""
    return bool(np.isfinite(logits).all())
