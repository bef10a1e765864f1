"""The openai client as it is, against a real service."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from web import Web

SAID: Any = [{"role": "user", "content": "say something"}]


@pytest.fixture(scope="module")
def client(web: Web) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=web.url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


def test_it_chats(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="small", messages=SAID, max_completion_tokens=8, seed=1, user="ann"
    )
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage is not None and answer.usage.completion_tokens <= 8
    assert answer.system_fingerprint is not None and answer.system_fingerprint.startswith("fp_")


def test_it_streams_what_it_chats(client: openai.OpenAI) -> None:
    asked: Any = {"model": "small", "messages": SAID, "max_tokens": 8, "seed": 1}
    whole = client.chat.completions.create(**asked)
    usage, text = None, ""
    for piece in client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ):
        usage = piece.usage
        text += "".join(choice.delta.content or "" for choice in piece.choices)
    assert text == whole.choices[0].message.content and usage is not None


def test_it_completes(client: openai.OpenAI) -> None:
    asked: Any = {"model": "small", "prompt": "The", "max_tokens": 4, "temperature": 0}
    whole = client.completions.create(**asked).choices[0].text
    assert (
        "".join(p.choices[0].text for p in client.completions.create(**asked, stream=True)) == whole
    )


def test_it_embeds(client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="words", input=["the cat", "dog"])  # In base64.
    numbers = client.embeddings.create(model="words", input="dog", encoding_format="float")
    assert found.data[1].embedding == pytest.approx(numbers.data[0].embedding, abs=0)


def test_it_talks_to_the_fleet(client: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": '{"n": 1}'}]
    answer = client.chat.completions.create(model="fleet:web", messages=said)
    assert '"n": 1' in (answer.choices[0].message.content or "") and answer.usage is None
    assert [model.id for model in client.models.list()] == ["small", "words", "fleet:web"]


def test_errors_are_its_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="large", messages=SAID)
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="small", messages=SAID, logit_bias={"1": 1})
    assert refused.value.param == "logit_bias"


def test_many_at_once_are_all_answered(client: openai.OpenAI) -> None:
    def ask(number: int) -> int:
        answer = client.chat.completions.create(
            model="small", messages=SAID, max_tokens=4 + number % 5
        )
        assert answer.usage is not None
        return answer.usage.completion_tokens

    with ThreadPoolExecutor(16) as threads:
        assert all(1 <= tokens <= 8 for tokens in threads.map(ask, range(32)))
