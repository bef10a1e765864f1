"""RESULT payloads in both forms."""

import json
import struct
from typing import Any

import pytest

from lockstep.workers.inference.logprobs import Scored, spelled
from lockstep.workers.inference.result import (
    RESULT_HEADER,
    RESULT_OFFSETS,
    Choice,
    encode_failure,
    encode_result,
    result_bytes_least,
)
from lockstep.workers.inference.sampling import Sampling


def result(raw: bool, text: str = "né") -> bytes:
    choice = Choice(text, [7, 511], "length")
    return encode_result(
        raw, [choice], sampling=None, tokens_in=5, tokens_cached=3, ticket=9, step=12
    )


def test_json_result_of_older_runs_has_the_bytes_it_always_had() -> None:
    assert result(False).decode() == (
        '{"finish_reason":"length","step":12,"text":"né","ticket":9,"token_ids":[7,511],'
        '"usage":{"cached_tokens":3,"completion_tokens":2,"prompt_tokens":5}}'
    )


def test_binary_result_has_its_fields_at_their_offsets_and_ids_aligned() -> None:
    assert (RESULT_HEADER.size, list(RESULT_OFFSETS.values())) == (32, [0, 4, 8, 12, 16, 24])
    data = result(True)
    assert struct.unpack_from("<IIIIQQ", data) == (1, 5, 2, 3, 9, 12)
    assert data[32:36] == b"n\xc3\xa9\0"
    assert struct.unpack_from("<2i", data, 36) == (7, 511)
    assert len(data) == 44
    assert len(result(True, "four")) == 44


def test_failures_say_why_in_both_forms() -> None:
    why = {"finish_reason": "refused", "error": "too long", "ticket": 9, "step": 12}
    assert json.loads(encode_failure(False, **why)) == why  # type: ignore[arg-type]
    data = encode_failure(True, **why)  # type: ignore[arg-type]
    assert struct.unpack_from("<IIIIQQ", data) == (2, 0, 0, 8, 9, 12)
    assert data[32:] == b"too long"
    statuses = {"invalid_output": 3, "cancelled": 4, "timeout": 5}
    for reason, status in statuses.items():
        data = encode_failure(True, finish_reason=reason, error="", ticket=0, step=0)
        assert data[0] == status


def test_a_failure_is_not_encoded_as_a_result_nor_the_other_way_round() -> None:
    with pytest.raises(ValueError, match="is no failure"):
        encode_failure(False, finish_reason="stop", error="", ticket=0, step=0)
    with pytest.raises(ValueError, match="is a failure"):
        encode_result(False, [Choice("", [], "timeout")], sampling=None, tokens_in=0,
                      tokens_cached=0, ticket=0, step=0)  # fmt: skip


SAMPLING = Sampling(n=2, logprobs=1).in_force(9)


def shown(choices: list[Choice]) -> dict[str, Any]:
    data = encode_result(
        False, choices, sampling=SAMPLING, tokens_in=5, tokens_cached=3, ticket=9, step=12
    )
    found: dict[str, Any] = json.loads(data)
    return found


def test_one_choice_stands_alone_and_says_what_was_in_force() -> None:
    scored = [spelled((Scored(7, -3271), Scored(2, -1)), None)]
    found = shown([Choice("a", [7], "stop", "\n", scored)])
    assert found == {
        "text": "a", "token_ids": [7], "finish_reason": "stop", "stop_reason": "\n",
        "logprobs": [
            {"token_id": 7, "logprob": -0.3271,
             "top_logprobs": [{"token_id": 2, "logprob": -0.0001}]},
        ],
        "sampling": SAMPLING, "ticket": 9, "step": 12,
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "cached_tokens": 3},
    }  # fmt: skip


def test_several_choices_are_listed_and_their_tokens_counted_together() -> None:
    found = shown([Choice("a", [7], "stop", 7), Choice("bc", [8, 9], "length")])
    assert [choice["index"] for choice in found["choices"]] == [0, 1]
    assert [choice["stop_reason"] for choice in found["choices"]] == [7, None]
    assert found["usage"]["completion_tokens"] == 3
    assert set(found) == {"choices", "usage", "sampling", "ticket", "step"}


@pytest.mark.parametrize("tokens", [1, 2, 30])
@pytest.mark.parametrize("samples", [1, 2, 64])
@pytest.mark.parametrize("top", [None, 0, 20])
def test_the_least_size_is_that_of_an_answer_of_the_shortest_numbers(
    tokens: int, samples: int, top: int | None
) -> None:
    scored = None if top is None else [spelled((Scored(0, 0),) * (1 + top), None)] * tokens
    choice = Choice("", [0] * tokens, "stop", None, scored)
    data = encode_result(
        False, [choice] * samples, sampling=SAMPLING, tokens_in=1, tokens_cached=0, ticket=0, step=0
    )
    least = result_bytes_least(tokens, samples, top, SAMPLING)
    # The count of tokens is one digit in the estimate.
    assert least <= len(data) <= least + 3
