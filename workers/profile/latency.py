"""Latency: what requests waited for, with the names that vLLM's serving benchmark gives it.

A request is asked when the supervisor issues its ticket; a token is there when the inference
process has reported the step that made it. ``ttft``: from asking to the first token; ``tpot``: mean
time per token after the first; ``itl``: each time from one token to the next; ``request``: from
asking to the answer. Samples of one request are one stream: their tokens come in the same steps.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lockstep.engine.wire import UNCOMPUTED
from lockstep.workers.profile.spans import Kind, Role
from lockstep.workers.profile.tracks import Records, Tracks, ns_of

VALUES_MAX = 10_000  # Of one distribution, evenly thinned.
PERCENTILES = (50, 90, 99)
NS_PER_MS = 1e6

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Requests:
    """All of a run, side by side; -1 where something is not known.

    Attributes:
        agent: Whose it is.
        asked, first, last, ended: Moments, in ns.
        tokens: Made for it.
        prompt: Tokens of its prompt.
        steps: In which tokens of it were made.
        gaps: Between two of them, of all requests together.
    """

    agent: Array
    asked: Array
    first: Array
    last: Array
    ended: Array
    tokens: Array
    prompt: Array
    steps: Array
    gaps: Array

    @classmethod
    def of(cls, tracks: Tracks) -> "Requests":
        """Those that were asked in a run."""
        asked = tracks.supervisor.of(Kind.ASKED)
        tickets, places = np.unique(asked["a"], return_index=True)
        asked = asked[places]
        whose, moments, counts = _tokens(tracks.joined(Role.INFERENCE, Kind.TOKEN), tickets)
        ended = tracks.joined(Role.INFERENCE, Kind.ENDED)
        where, known = _places(tickets, ended["a"])
        ends, prompts = np.full(len(tickets), -1), np.zeros(len(tickets), np.int64)
        ends[where[known]] = ended["end"][known]
        prompts[where[known]] = ended["b"][known]
        begins = np.flatnonzero(np.diff(whose, prepend=-1))
        first, last = np.full(len(tickets), -1), np.full(len(tickets), -1)
        steps, tokens = (np.zeros(len(tickets), np.int64) for _ in range(2))
        first[whose[begins]] = moments[begins]
        last[whose] = moments  # Rising: the last one stays.
        np.add.at(steps, whose, 1)
        np.add.at(tokens, whose, counts)
        computed = tokens > 0  # As `engine.reports` counts prompts.
        computed[where[known]] |= ~np.isin(ended["c"][known], UNCOMPUTED)
        gaps = np.diff(moments)[np.diff(whose) == 0]
        agent, at = asked["c"].astype(np.int64), asked["start"].astype(np.int64)
        return cls(agent, at, first, last, ends, tokens, prompts * computed, steps, gaps)

    def by_agent(self) -> dict[int, dict[str, int]]:
        """``requests``, ``tokens_in`` and ``tokens_out`` of each agent that asked."""
        return {
            agent: {
                "requests": int((self.agent == agent).sum()),
                "tokens_in": int(self.prompt[self.agent == agent].sum()),
                "tokens_out": int(self.tokens[self.agent == agent].sum()),
            }
            for agent in np.unique(self.agent).tolist()
        }

    def distributions(self) -> dict[str, Array]:
        """Milliseconds by name."""
        got, more, over = self.first >= 0, self.steps > 1, self.ended >= 0
        after = (self.last - self.first)[more] / (self.steps - 1)[more]
        return {
            "ttft_ms": (self.first - self.asked)[got] / NS_PER_MS,
            "tpot_ms": after / NS_PER_MS,
            "itl_ms": self.gaps / NS_PER_MS,
            "request_ms": (self.ended - self.asked)[over] / NS_PER_MS,
        }


def _places(tickets: Array, wanted: Array) -> tuple[Array, Array]:
    """Where in ``tickets``, which rise, each wanted one is; and whether it is there."""
    where = np.searchsorted(tickets, wanted)
    known = where < len(tickets)
    known[known] = tickets[where[known]] == wanted[known]
    return where, known


def _tokens(records: Records, tickets: Array) -> tuple[Array, Array, Array]:
    """By request and moment: the request's place, the moment, tokens made then."""
    where, known = _places(tickets, records["a"])
    pairs = np.stack([where[known], records["end"][known].astype(np.int64)], axis=1)
    if not len(pairs):
        empty = np.empty(0, np.int64)
        return empty, empty, empty
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    return found[:, 0], found[:, 1], counts


def distributions(tracks: Tracks, requests: Requests) -> dict[str, Any]:
    """Of requests, steps, turns and journal writes: ``count``, and ``values`` that rise."""
    turns = tracks.joined(Role.AGENT, Kind.TURN)
    found = requests.distributions() | {
        "step_ms": ns_of(tracks.joined(Role.INFERENCE, Kind.STEP)) / NS_PER_MS,
        "turn_ms": (ns_of(turns) + turns["b"].astype(np.int64)) / NS_PER_MS,
        "guest_ms": ns_of(turns) / NS_PER_MS,
        "journal_write_ms": ns_of(tracks.supervisor.of(Kind.JOURNAL)) / NS_PER_MS,
        "sync_ms": ns_of(tracks.joined(Role.SYNC, Kind.SYNC)) / NS_PER_MS,
    }
    return {name: _thinned(np.sort(values)) for name, values in found.items()}


def _thinned(values: Array) -> dict[str, Any]:
    count = len(values)
    percentiles = {}
    if count:
        marks = np.percentile(values, PERCENTILES)
        percentiles = {f"p{n}": float(m) for n, m in zip(PERCENTILES, marks, strict=True)}
    if count > VALUES_MAX:
        values = values[np.linspace(0, count - 1, VALUES_MAX).astype(np.int64)]
    return {"count": count, **percentiles, "values": np.round(values, 6).tolist()}
