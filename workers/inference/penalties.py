"""Penalties: logits changed by what the prompt and the answer said already.

In this order, each in float64 and the result rounded once to float32:

    repetition   l / r where l > 0, else l * r: for every token of prompt and answer
                 (Keskar et al., CTRL, 2019, section 4.1; transformers and vLLM have it so)
    frequency    l - f * c, c times in the answer      (OpenAI's API reference, "frequency and
    presence     l - p, if it is in the answer at all   presence penalties")

A result beyond float32 becomes its largest finite value: a penalty never makes a row invalid.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lockstep.workers.inference.exact import Floats, Floats32
from lockstep.workers.inference.sampling import Sampling

FLOAT32_MAX = float(np.finfo(np.float32).max)


def penalised(
    logits: Floats32, prompt: Iterable[int], answer: Mapping[int, int], sampling: Sampling
) -> Floats32:
    """A copy of a row with the penalties of a request applied.

    Args:
        logits: Finite, of shape (vocab,).
        prompt: Its distinct token ids.
        answer: Token id -> how often it was generated.
        sampling: Of the request.
    """
    changed = logits.copy()
    counts = dict(answer)
    if sampling.repetition_penalty != 1:
        for token in prompt:
            counts.setdefault(token, 0)
    ids = np.fromiter(counts, np.int64, len(counts))
    times = np.fromiter(counts.values(), np.float64, len(counts))
    values = _repetition(logits[ids].astype(np.float64), sampling.repetition_penalty)
    values -= sampling.frequency_penalty * times
    values -= np.where(times > 0, sampling.presence_penalty, 0.0)
    changed[ids] = np.clip(values, -FLOAT32_MAX, FLOAT32_MAX)
    return changed


def forbidden(logits: Floats32, ids: Sequence[int]) -> Floats32:
    """A copy of a row in which some ids cannot be drawn; at least one other is finite."""
    changed = logits.copy()
    changed[list(ids)] = -np.inf
    return changed


def _repetition(values: Floats, penalty: float) -> Floats:
    with np.errstate(over="ignore"):
        return np.where(values > 0, values / penalty, values * penalty)
