"""Serving: what requests waited for, with the names that vLLM's serving benchmark gives it.

Of every request it takes when it was asked, when each of its tokens was there, and how much of its
prompt had been computed before. ``ttft`` is the time to the first token; ``tpot`` a request's mean
time per token after the first; ``itl`` each time from one token to the next, all requests
together. Percentiles are interpolated as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

import numpy as np

# Goodput counts the requests within both: what a person would still call fluent.
TTFT_MS_MAX = 5_000.0
TPOT_MS_MAX = 200.0

Results = dict[str, tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Served:
    """One request that was answered.

    Attributes:
        asked_ns: On any clock.
        tokens_ns: On the same.
        prompt: Tokens of its prompt.
        cached: How many of them were not computed for it.
    """

    asked_ns: int
    tokens_ns: Sequence[int]
    prompt: int
    cached: int

    @classmethod
    def of(cls, found: Sequence[Any]) -> Self:
        """From ``[asked_ns, tokens_ns, prompt, cached]``, as contestants say it."""
        asked, tokens, prompt, cached = found
        return cls(asked, tokens, prompt, cached)

    @property
    def ttft_ms(self) -> float:
        """Time to the first token."""
        return (self.tokens_ns[0] - self.asked_ns) / 1e6

    @property
    def tpot_ms(self) -> float:
        """Mean time per token after the first; 0 where there is none."""
        after = len(self.tokens_ns) - 1
        return (self.tokens_ns[-1] - self.tokens_ns[0]) / 1e6 / after if after else 0.0

    @property
    def itl_ms(self) -> list[float]:
        """Times from one token to the next."""
        pairs = zip(self.tokens_ns, self.tokens_ns[1:], strict=False)
        return [(later - earlier) / 1e6 for earlier, later in pairs]

    @property
    def good(self) -> bool:
        """Whether it counts for goodput."""
        return self.ttft_ms <= TTFT_MS_MAX and self.tpot_ms <= TPOT_MS_MAX


def figures(served: Sequence[Served], seconds: float) -> Results:
    """The figures of one run.

    Args:
        served: Every request, at least one with two tokens.
        seconds: From the first request to the last token.

    Returns:
        Name to (value, unit).
    """
    tokens_in = sum(request.prompt for request in served)
    tokens_out = sum(len(request.tokens_ns) for request in served)
    cached = sum(request.cached for request in served)
    results: Results = {
        "completed": (len(served), "requests"),
        "duration": (seconds, "s"),
        "total_input_tokens": (tokens_in, "tokens"),
        "total_output_tokens": (tokens_out, "tokens"),
        "request_throughput": (len(served) / seconds, "requests/s"),
        "request_goodput": (sum(request.good for request in served) / seconds, "requests/s"),
        "output_throughput": (tokens_out / seconds, "tokens/s"),
        "total_token_throughput": ((tokens_in + tokens_out) / seconds, "tokens/s"),
        "prefix_hit_rate": (cached / tokens_in, "of prompt tokens"),
    }
    results |= _spread("ttft", [request.ttft_ms for request in served])
    results |= _spread("tpot", [r.tpot_ms for r in served if len(r.tokens_ns) > 1])
    results |= _spread("itl", [gap for request in served for gap in request.itl_ms])
    return results


def _spread(name: str, values: Sequence[float]) -> Results:
    return {
        f"mean_{name}_ms": (fmean(values), "ms"),
        f"median_{name}_ms": (float(np.percentile(values, 50)), "ms"),
        f"p99_{name}_ms": (float(np.percentile(values, 99)), "ms"),
    }
