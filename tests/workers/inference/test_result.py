"""RESULT payloads in both forms."""

import json
import struct

import pytest

from lockstep.workers.inference.result import (
    RESULT_HEADER,
    RESULT_OFFSETS,
    encode_failure,
    encode_result,
)


def result(raw: bool, text: str = "né") -> bytes:
    return encode_result(
        raw, text=text, token_ids=[7, 511], finish_reason="length", tokens_in=5, tokens_cached=3,
        ticket=9, step=12,
    )  # fmt: skip


def test_json_result_is_canonical() -> None:
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
        encode_result(False, text="", token_ids=[], finish_reason="timeout", tokens_in=0,
                      tokens_cached=0, ticket=0, step=0)  # fmt: skip
