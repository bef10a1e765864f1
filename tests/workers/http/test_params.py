"""Parameters: every key of a request is served, known to change nothing, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.workers.http import params
from lockstep.workers.http.params import Asked
from lockstep.workers.http.problems import Problem

SAID = [{"role": "user", "content": "why?"}]
CHAT: dict[str, Any] = {"model": "m", "messages": SAID}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KEYS = st.sampled_from([
    *params.CHAT, *params.SAMPLING, *params.STREAM, *params.COMPLETION, *params.EMBEDDING,
    *params.IGNORED, *params.NEUTRAL,
]) | st.text(max_size=8)  # fmt: skip


def test_a_chat_becomes_a_request_as_agents_write_them() -> None:
    asked = params.chat({
        **CHAT, "max_completion_tokens": 9, "temperature": 0.5, "stop": "\n", "n": 2,
        "logprobs": True, "top_logprobs": 3, "user": "ann", "tools": [], "top_p": None,
    })  # fmt: skip
    assert asked == Asked("m", {
        "messages": SAID, "max_tokens": 9, "temperature": 0.5, "stop": "\n", "n": 2,
        "logprobs": True, "top_logprobs": 3,
    }, names={"prompt": "messages", "max_tokens": "max_completion_tokens"})  # fmt: skip


def test_defaults_are_those_of_the_api() -> None:
    assert params.chat(CHAT).request == {"messages": SAID, "temperature": 1}
    asked = params.completion({"model": "m", "prompt": ["once"]})
    assert asked.request == {"prompt": "once", "temperature": 1, "max_tokens": 16}
    assert "temperature" not in params.chat({**CHAT, "defaults": "model"}).request


def test_a_request_with_a_seed_names_its_draws() -> None:
    assert params.chat({**CHAT, "seed": 7}).request["ordinal"] == 0
    assert "ordinal" not in params.chat(CHAT).request


def test_parts_of_text_are_one_text_and_what_an_answer_left_empty_is_nothing() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    said = [
        {
            "role": "assistant",
            "content": "x",
            "refusal": None,
            "tool_calls": None,
            "annotations": [],
        },
        {"role": "user", "content": parts},
    ]
    assert params.chat({"model": "m", "messages": said}).request["messages"] == [
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "ab"},
    ]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"prompt": "x"}, "prompt"),
        ({"temperature": 11}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"n": 0}, "n"),
        ({"stop": [""]}, "stop"),
        ({"seed": -1}, "seed"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"more": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{**SAID[0], "name": "ann"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[0].content[0]"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "messages"),
        ({"model": None}, "model"),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Problem) as found:
        params.chat({**CHAT, **more})
    assert found.value.status == 400 and found.value.param == param


@pytest.mark.parametrize(
    ("given_", "said", "heard", "param"),
    [
        ("max_completion_tokens", "prompt: 9 tokens and max_tokens = 90 are 99",
         "messages: 9 tokens and max_completion_tokens = 90 are 99", "messages"),
        ("max_tokens", "prompt: 9 tokens and max_tokens = 90 are 99",
         "messages: 9 tokens and max_tokens = 90 are 99", "messages"),
        ("max_completion_tokens", "min_tokens: 5, more than the 3 tokens of max_tokens",
         "min_tokens: 5, more than the 3 tokens of max_completion_tokens", "min_tokens"),
        ("max_completion_tokens", "messages[0].role: 'max_tokens' is unknown",
         "messages[0].role: 'max_tokens' is unknown", "messages"),
        ("max_completion_tokens", "the template refuses max_tokens", "the template refuses "
         "max_tokens", None),
    ],
)  # fmt: skip
def test_what_a_model_refuses_is_told_in_the_words_of_the_client(
    given_: str, said: str, heard: str, param: str | None
) -> None:
    problem = params.rejected(said, params.chat({**CHAT, given_: 90}).names)
    assert (problem.message, problem.param) == (heard, param)
    plain = params.rejected(said, params.completion({"model": "m", "prompt": "once"}).names)
    assert plain.message == said


@given(st.dictionaries(KEYS, JSON, max_size=6))
def test_any_object_is_a_request_or_a_refusal(body: dict[str, Any]) -> None:
    for read in (params.chat, params.completion, params.embedding, params.fleet):
        for made in (body, {**CHAT, **body}):
            try:
                assert isinstance(read(made), Asked)
            except Problem as problem:
                assert problem.status == 400


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ('{"id": "a", "n": 1}', {"id": "a", "n": 1}),
        ("why?", {"text": "why?"}),
        ("[1]", {"text": "[1]"}),
        ("{", {"text": "{"}),
    ],
)
def test_the_last_text_is_the_item_of_a_fleet(text: str, item: dict[str, Any]) -> None:
    asked = params.fleet({"model": "fleet:f", "messages": [{"role": "user", "content": text}]})
    assert asked.request == item


def test_a_fleet_hears_what_was_said_before_and_is_told_no_way_to_choose_tokens() -> None:
    said = [{"role": "system", "content": "be brief"}, *SAID]
    asked = params.fleet({"model": "fleet:f", "messages": said, "stream": True})
    assert asked.request == {"text": "why?", "messages": said} and asked.stream
    with pytest.raises(Problem, match="temperature") as found:
        params.fleet({"model": "fleet:f", "messages": said, "temperature": 1})
    assert found.value.param == "temperature"


def test_embeddings_are_asked_for_in_base64_whatever_the_client_wants() -> None:
    asked = params.embedding({"model": "w", "input": ["a"], "dimensions": 2})
    assert asked == Asked("w", {"input": ["a"], "dimensions": 2, "encoding": "base64"}, floats=True)
    assert not params.embedding({"model": "w", "input": "a", "encoding_format": "base64"}).floats
    with pytest.raises(Problem) as found:
        params.embedding({"model": "w", "input": [[1, 2]]})
    assert found.value.param == "input"
