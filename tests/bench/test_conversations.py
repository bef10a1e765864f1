"""The trace is the same everywhere, and the guest holds the conversations that are written down."""

import hashlib
from itertools import pairwise
from pathlib import Path

from lockstep.bench import conversations
from lockstep.bench.contestant import whole
from lockstep.bench.conversations import ANSWER, SAY, trace
from lockstep.bench.groups import serve


def test_the_trace_is_the_one_that_was_measured() -> None:
    said = trace()
    assert [len(turns) for turns in said.agents] == [6] * 32
    assert (len(said.shared), said.tokens_max, said.tokens_out) == (400, 1019, 7655)
    words = said.shared + said.lines()
    assert hashlib.sha256(words.encode()).hexdigest()[:16] == "309309b844e03201"


def test_lengths_vary_between_their_bounds() -> None:
    turns = [turn for turns in trace().agents for turn in turns]
    says, answers = [len(turn.say) for turn in turns], [turn.tokens for turn in turns]
    assert SAY[0] <= min(says) <= 16 and 56 <= max(says) <= SAY[1]
    assert ANSWER[0] <= min(answers) <= 10 and 80 <= max(answers) <= ANSWER[1]
    assert sum(tokens < 32 for tokens in answers) > len(answers) * 0.4


def test_each_piece_of_the_lengths_joins_the_one_before() -> None:
    lengths = [conversations._between(8, 96, number / 1000) for number in range(1000)]
    assert lengths == sorted(lengths) and lengths[0] == 8 and lengths[-1] == 96
    assert max(b - a for a, b in pairwise(lengths)) == 1


def test_a_smaller_trace_is_the_beginning_of_the_large_one() -> None:
    small, large = trace(3, 2, 50), trace()
    assert large.shared.startswith(small.shared)
    assert small.agents == tuple(turns[:2] for turns in large.agents[:3])


def test_agents_hold_the_conversations_and_never_compute_twice_what_was_said(
    small_model: Path,
) -> None:
    said = trace(3, 3, 20)
    done = whole(serve.fleet(said, str(small_model), 1), said.lines(), watch=True)
    assert done.tokens_out == said.tokens_out
    requests = done.seen["requests"]
    assert len(requests) == 9 and sum(done.seen["rows"]) == said.tokens_out
    expected = []
    for turns in said.agents:
        tokens = len(said.shared)
        for turn in turns:
            tokens += len(turn.say)
            expected.append((tokens, turn.tokens))
            tokens += turn.tokens
    assert sorted((r[2], len(r[1])) for r in requests) == sorted(expected)
    # Behind the first turn only the last answer's last token and the new line are computed.
    lengths = {prompt: cached for _, _, prompt, cached in requests}
    for turns in said.agents:
        tokens = len(said.shared) + len(turns[0].say) + turns[0].tokens
        assert lengths[tokens + len(turns[1].say)] == tokens - 1
    for asked, tokens_ns, _, _ in requests:
        assert asked < tokens_ns[0] and tokens_ns == sorted(tokens_ns)
