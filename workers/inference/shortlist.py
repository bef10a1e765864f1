"""Shortlists: the largest logits of a row, cut where they are computed, in place of the row.

Only where they decide the next token by themselves: the greedy one is the first of them, and top_k
draws from the k largest. Whatever asks for more (penalties, log-probabilities, a draw from the
whole vocabulary) gets the row. `spread` makes a row of them for the sampler, in which all others
are the least float32: the same arithmetic decides, over the same ids and logits, so the token is
the same, bit for bit.
"""

from typing import Any, NamedTuple

import numpy as np

from lockstep.workers.inference.exact import Floats32
from lockstep.workers.inference.sampling import Sampling

LEAST = np.finfo(np.float32).min


class Shortlist(NamedTuple):
    """The largest logits of a row.

    Attributes:
        values: Largest first.
        ids: Their tokens; lower ids first among equals.
        sound: No logit of the whole row is NaN or infinite.
    """

    values: Floats32
    ids: np.ndarray[Any, np.dtype[np.int64]]
    sound: bool

    @property
    def likeliest(self) -> int:
        """The greedy token."""
        return int(self.ids[0])

    def spread(self, vocab: int) -> Floats32:
        """A row whose largest logits are these, where they belong."""
        row = np.full(vocab, LEAST, np.float32)
        row[self.ids] = self.values
        return row


Row = Floats32 | Shortlist


def enough(sampling: Sampling, tokens: int, ends: bool) -> int:
    """How many of the largest logits decide the next token of an answer; 0: only all of them.

    Args:
        sampling: Of the request.
        tokens: That the answer has.
        ends: Whether some ids end it, which `min_tokens` may forbid.
    """
    changed = sampling.counts or (ends and tokens < sampling.min_tokens)
    if changed or sampling.logprobs is not None:
        return 0
    return 1 if sampling.temperature == 0 else sampling.top_k
