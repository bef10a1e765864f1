"""Log-probabilities of the model's own distribution, in whole steps of 1e-4.

They are of the raw logits, before penalties, temperature and cuts (vLLM's ``raw_logprobs``), and
natural logarithms. Rounded, since digits behind that differ between kernels that are equally
right; as whole numbers, so that record and JSON have one spelling of each.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lockstep.workers.inference.cut import in_order, largest
from lockstep.workers.inference.exact import Floats32, log, running_weights

STEPS = 10_000  # In 1.
LOWEST = -9_999 * STEPS  # vLLM's -9999.0, in place of what is even less likely.


class Scored(NamedTuple):
    """A token id and its log-probability in steps of 1e-4."""

    token: int
    steps: int


def scores(logits: Floats32, token: int, top: int) -> tuple[Scored, ...]:
    """The drawn token's, then those of the ``top`` likeliest, lower ids first among equals.

    Args:
        logits: Finite, of shape (vocab,), as the model gave them.
        token: That was drawn.
        top: 0 or more; all, if the vocabulary is smaller.
    """
    most = float(logits.max())
    total = log(float(running_weights(logits, 1.0)[-1]))
    ids = [token]
    if top:
        count = min(top, logits.size)
        ids += in_order(logits, largest(logits, count)).tolist()
    return tuple(Scored(i, _steps(float(logits[i]) - most - total)) for i in ids)


def spelled(scored: Sequence[Scored]) -> dict[str, Any]:
    """One token's, as an answer has them."""
    first, *top = scored
    shown = [{"token_id": token, "logprob": steps / STEPS} for token, steps in top]
    return {
        "token_id": first.token,
        "logprob": first.steps / STEPS,
        "top_logprobs": shown,
    }


def _steps(value: float) -> int:
    return max(round(value * STEPS), LOWEST)
