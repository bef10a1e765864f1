"""Log-probabilities of the model's own distribution, in whole steps of 1e-4.

They are of the raw logits, before penalties, temperature and cuts (vLLM's ``raw_logprobs``), and
natural logarithms. Rounded, since digits behind that differ between kernels that are equally
right; as whole numbers, so that record and JSON have one spelling of each.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lockstep.workers.inference.cut import in_order, largest, reaching
from lockstep.workers.inference.exact import Floats32, log
from lockstep.workers.inference.token_name import TokenName
from lockstep.workers.inference.weights import total, weigh

STEPS = 10_000  # In 1.
LOWEST = -9_999 * STEPS  # vLLM's -9999.0, in place of what is even less likely.


class Scored(NamedTuple):
    """A token id and its log-probability in steps of 1e-4."""

    token: int
    steps: int


Naming = Callable[[int], TokenName]  # By token id.


def total_of(logits: Floats32) -> float:
    """What `scores` is given as ``whole``."""
    most = logits.max()
    ids = reaching(logits, most, 1.0, 0.0)
    return total(weigh(logits if ids is None else logits[ids], most, 1.0))


def scores(logits: Floats32, token: int, top: int, whole: float) -> tuple[Scored, ...]:
    """The drawn token's, then those of the ``top`` likeliest, lower ids first among equals.

    Args:
        logits: Finite, of shape (vocab,), as the model gave them.
        token: That was drawn.
        top: 0 or more; all, if the vocabulary is smaller.
        whole: The sum of exp(l - max), of all logits.
    """
    most, logarithm = float(logits.max()), log(whole)
    ids = [token]
    if top:
        count = min(top, logits.size)
        ids += in_order(logits, largest(logits, count)).tolist()
    return tuple(Scored(i, _steps(float(logits[i]) - most - logarithm)) for i in ids)


def spelled(scored: Sequence[Scored], named: Naming | None) -> dict[str, Any]:
    """One token's, as an answer has them; ``named`` None: ids say it all, as they once did."""
    first, *top = (_spelled(each, named) for each in scored)
    return {**first, "top_logprobs": top}


def _spelled(scored: Scored, named: Naming | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"token_id": scored.token}
    if named is not None:
        text, data = named(scored.token)
        shown |= {"token": text, "bytes": list(data)}
    return {**shown, "logprob": scored.steps / STEPS}


def _steps(value: float) -> int:
    return max(round(value * STEPS), LOWEST)
