"""The sequencer alone: tags, turns and messages per second, with scripted agents."""

from typing import Any

import pytest

from lockstep.bench.scripted import Play, passing

TAGS = 20


@pytest.mark.parametrize("agents", [2, 100, 1000])
def test_tags_of_agents_that_pass_one_message(benchmark: Any, agents: int) -> None:
    play = Play(agents, passing(agents, 1))
    _measure(benchmark, play, agents, "us_per_turn")


@pytest.mark.parametrize("messages", [10, 1000])
def test_messages_of_four_agents(benchmark: Any, messages: int) -> None:
    play = Play(4, passing(4, messages))
    _measure(benchmark, play, 4 * messages, "us_per_message")


def _measure(benchmark: Any, play: Play, per_tag: int, name: str) -> None:
    before = play.messages
    benchmark(play.run, TAGS)
    assert (play.messages - before) % (TAGS * per_tag) == 0 < play.messages - before
    if benchmark.enabled:
        benchmark.extra_info[name] = benchmark.stats.stats.min / TAGS / per_tag * 1e6
