"""A sample: one of the answers to a request, while it grows.

Everything here is a function of its tokens, so a process that takes over is given the tokens and
has the sample. Only log-probabilities are not: those are in the record of each step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lockstep.workers.inference.detokenizer import Detokenizer
from lockstep.workers.inference.exact import Floats32
from lockstep.workers.inference.logprobs import Scored
from lockstep.workers.inference.penalties import forbidden, penalised
from lockstep.workers.inference.sampling import Sampling
from lockstep.workers.inference.stops import Stops
from lockstep.workers.inference.text import Text

Matched = str | int | None  # The stop string or the request's own stop token that ended an answer.


@dataclass(frozen=True, slots=True)
class Terms:
    """What all samples of a request have in common.

    Attributes:
        sampling: Parameters in force.
        text: Of the model.
        prompt: Its distinct token ids, if penalties ask for them.
        ends: Token ids that end an answer, ascending.
        tokens_max: Tokens that an answer may have.
    """

    sampling: Sampling
    text: Text
    prompt: tuple[int, ...]
    ends: tuple[int, ...]
    tokens_max: int


class Sample:
    """One answer.

    Attributes:
        tokens: All of it, a token that ended it included.
        scores: Of each token, where the request asked for log-probabilities.
        reason: "stop" or "length" once it has ended, else empty.
        matched: What ended it, if that was something the request named.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._counts: dict[int, int] = {}  # Token id -> times; empty without penalties.
        strings = terms.sampling.stop
        self._stops = Stops(strings) if strings else None
        self._reader = Detokenizer(terms.text) if strings else None
        self.tokens: list[int] = []
        self.scores: list[tuple[Scored, ...]] = []
        self.reason = ""
        self.matched: Matched = None

    def adjusted(self, logits: Floats32) -> Floats32:
        """The logits that the next token is drawn from: penalties, and no end before its time."""
        sampling, ends = self._terms.sampling, self._terms.ends
        if sampling.counts:
            logits = penalised(logits, self._terms.prompt, self._counts, sampling)
        if len(self.tokens) < sampling.min_tokens and ends:
            logits = forbidden(logits, ends)
        return logits

    def add(self, token: int) -> bool:
        """Take the next token; whether it ends the sample by a stop, whatever the limit says."""
        self.tokens.append(token)
        if self._terms.sampling.counts:
            self._counts[token] = self._counts.get(token, 0) + 1
        last = len(self.tokens) == self._terms.tokens_max
        ends = token in self._terms.ends
        found = self._read(token, last, ends)
        if ends and not found and token in self._terms.sampling.stop_token_ids:
            self.matched = token
        if ends or found:
            self.reason = "stop"
        elif last:
            self.reason = "length"
        return ends or found

    def _read(self, token: int, last: bool, ends: bool) -> bool:
        """Whether a stop string is in the text, as far as that is settled."""
        if self._stops is None or self._reader is None:
            return False
        piece = "" if ends else self._reader.push(token)
        if last or ends:
            piece += self._reader.finish()
        counts = len(self.tokens) > self._terms.sampling.min_tokens
        found = self._stops.feed(piece, search=counts)
        self.matched = self._stops.found
        return found

    def replay(self, tokens: Iterable[int], scores: Sequence[tuple[Scored, ...]]) -> None:
        """Become the sample that had these tokens."""
        for token in tokens:
            self.add(token)
        self.scores = list(scores)

    def said(self) -> str:
        """Its text: cut before a stop string, and without a token that ended it."""
        if self._stops is not None and self._stops.found is not None:
            return self._stops.text
        ended = self.reason == "stop"
        return self._terms.text.decode(self.tokens[:-1] if ended else self.tokens)
