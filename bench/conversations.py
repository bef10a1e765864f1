"""Conversations: what many agents say to one model, the same for everybody who serves them.

Every agent's text begins with the same system prompt; then it says a line, gets an answer, says
the next line behind all of that. How long lines and answers are is drawn by name from a fixed
seed (engine/keyed.py), so that the trace is the same on any machine. Only the words of the
answers differ between those who serve it; their lengths are forced.
"""

import json
from dataclasses import dataclass
from typing import Any

from lockstep.bench.models import SPOKEN, token_ids
from lockstep.engine import keyed

SEED = 1
AGENTS = 32
TURNS = 6
SHARED = 400  # Tokens of the system prompt.
SAY = (12, 60)  # Tokens of a line: all lengths are equally likely.
# Tokens of an answer: half of them are below the geometric mean, few come near the end.
ANSWER = (8, 96)


@dataclass(frozen=True, slots=True)
class Turn:
    """A line, and how long the answer is, in tokens."""

    say: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that is said.

    Attributes:
        shared: What every conversation begins with.
        agents: The turns of each.
    """

    shared: str
    agents: tuple[tuple[Turn, ...], ...]

    @property
    def tokens_max(self) -> int:
        """Of the longest conversation."""
        sizes = (sum(len(t.say) + t.tokens for t in turns) for turns in self.agents)
        return len(self.shared) + max(sizes)

    @property
    def tokens_out(self) -> int:
        """Of all answers."""
        return sum(turn.tokens for turns in self.agents for turn in turns)

    def lines(self) -> str:
        """The input of bench/guests/converse.c: an item for each agent."""
        items = (
            {"turns": [{"say": turn.say, "tokens": turn.tokens} for turn in turns]}
            for turns in self.agents
        )
        return "".join(json.dumps(item) + "\n" for item in items)

    def ids(self) -> dict[str, Any]:
        """For peers: the same in token ids, ``{"shared", "agents": [[[line, answer tokens]]]}``."""
        agents = [[[token_ids(t.say), t.tokens] for t in turns] for turns in self.agents]
        return {"shared": token_ids(self.shared), "agents": agents}


def trace(agents: int = AGENTS, turns: int = TURNS, shared: int = SHARED) -> Trace:
    """The trace; a smaller one is the beginning of it."""
    return Trace(
        _text("shared", 0, 0, shared),
        tuple(tuple(_turn(agent, turn) for turn in range(turns)) for agent in range(agents)),
    )


def _turn(agent: int, turn: int) -> Turn:
    lengths = keyed.key(SEED, "conversations", "lengths")
    say = SAY[0] + int(keyed.uniform(lengths, agent, turn, 0) * (SAY[1] - SAY[0] + 1))
    drawn = keyed.uniform(lengths, agent, turn, 1)
    low, high = ANSWER
    return Turn(_text("say", agent, turn, say), _between(low, high, drawn))


def _between(low: int, high: int, drawn: float) -> int:
    """Straight pieces between powers of two, so that no machine's own logarithm decides."""
    doublings = 1
    while low << doublings < high:
        doublings += 1
    piece = int(drawn * doublings)
    start = low << piece
    return min(high, start + int((drawn * doublings - piece) * start))


def _text(purpose: str, agent: int, turn: int, size: int) -> str:
    stream = keyed.key(SEED, "conversations", purpose)
    draws = (keyed.draw(stream, agent, turn, place) for place in range(size))
    return "".join(SPOKEN[draw % len(SPOKEN)] for draw in draws)
