"""INFER payloads: what is read, what is refused, and that nothing else can happen."""

import json
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.engine.errors import RequestRejected
from lockstep.workers.inference import request as module
from lockstep.workers.inference import sampling
from lockstep.workers.inference.request import (
    INFER_HEADER,
    INFER_OFFSETS,
    InferRequest,
    Message,
    parse_infer,
    tokens_out,
)
from lockstep.workers.inference.sampling import Sampling

# A loaded machine is slow; that is not a fault of what is tested.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parse(**fields: Any) -> InferRequest:
    return parse_infer(json.dumps(fields).encode(), False)


def test_every_field_of_the_json_form_is_read() -> None:
    found = parse(
        messages=[{"role": "user", "content": "hé"}], max_tokens=5, temperature=1, seed=2**64 - 1,
        model="m", priority=7, timeout_steps=9, conversation="c", ordinal=0,
    )  # fmt: skip
    assert found == InferRequest(
        messages=(Message("user", "hé"),), tokens_out_max=5, model="m", priority=7,
        timeout_steps=9, conversation="c", ordinal=0,
        sampling=Sampling(temperature=1.0, seed=2**64 - 1, given=("temperature", "seed")),
    )  # fmt: skip
    assert parse(prompt="x") == InferRequest(prompt="x")
    assert set(module.KEYS) == {*module.OLD_KEYS, "ordinal", *sampling.KEYS}


def test_older_runs_know_the_keys_of_their_day_and_list_no_others() -> None:
    request = b'{"prompt":"a","temperature":0.5,"seed":3}'
    assert parse_infer(request, False, old=True) == parse_infer(request, False)
    known = ", ".join(sorted(module.OLD_KEYS))
    for key in ("top_p", "tools"):
        with pytest.raises(RequestRejected) as caught:
            parse_infer(json.dumps({"prompt": "a", key: 1}).encode(), False, old=True)
        assert str(caught.value) == f"request: key {key!r} is unknown; known: {known}"


@pytest.mark.parametrize(
    ("key", "match"),
    [
        ("tools", "'tools' is known to OpenAI, and not served here"),
        ("logit_bias", "'logit_bias' is known to OpenAI, and not served here"),
        ("response_format", "'response_format' is known to OpenAI, and not served here"),
        ("bad_words", "'bad_words' is known to vLLM, and not served here"),
        ("max_completion_tokens", "unknown; here it is 'max_tokens'"),
        ("topp", "unknown; did you mean 'top_p'"),
    ],
)
def test_what_others_take_and_this_does_not_is_said_by_name(key: str, match: str) -> None:
    with pytest.raises(RequestRejected, match=match):
        parse(**{"prompt": "a", key: 1})
    assert not any(key in module.KEYS for keys in module.FOREIGN.values() for key in keys)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"prompt":"a","prompt":"b"}', "'prompt' appears twice"),
        ('{"messages":[{"role":"user","content":"a","content":"b"}]}', "'content' appears twice"),
        ('{"prompt":"a","temperature":NaN}', "NaN is not JSON"),
        ('{"prompt":"a","temperature":-Infinity}', "-Infinity is not JSON"),
        ('{"prompt":"a","temperature":1e999}', "1e999 does not fit"),
        ('{"prompt":"a","seed":' + "9" * 5000 + "}", "a number of 5000 digits, at most 400"),
        ('{"prompt":' + "[" * 100_000, "nested deeper than 8"),
        ('{"prompt":"' + "[" * 100_000, "Unterminated"),
        ("[]", r"expected a JSON object, found \[\]"),
        ("", "not valid JSON"),
        ('{"prompt":"a"} x', "not valid JSON"),
        ('{"prompt":"\\ud800"}', "half a surrogate"),
        ('{"prompt":"a","conversation":"\\udfff"}', "half a surrogate"),
        ('{"prompt":"a","max_token":5}', "did you mean 'max_tokens'"),
        ('{"prompt":"a","zzz":5}', "'zzz' is unknown; known: conversation"),
        ("{}", "one of prompt and messages"),
        ('{"prompt":"a","messages":[]}', "one of prompt and messages"),
        ('{"prompt":""}', "prompt: empty"),
        ('{"prompt":5}', "prompt: 5, expected text"),
        ('{"prompt":"a","max_tokens":0}', "0, expected a whole number of 1 to 2147483647"),
        ('{"prompt":"a","max_tokens":1.0}', "1.0, expected a whole number"),
        ('{"prompt":"a","max_tokens":true}', "true, expected a whole number"),
        ('{"prompt":"a","max_tokens":null}', "null, expected a whole number"),
        ('{"prompt":"a","temperature":-0.1}', "-0.1, expected 0 to 10.0"),
        ('{"prompt":"a","temperature":11}', "11, expected 0 to 10.0"),
        ('{"prompt":"a","temperature":"1"}', '"1", expected 0 to 10.0'),
        ('{"prompt":"a","seed":-1}', "-1, expected a whole number of 0 to 18446744073709551615"),
        ('{"prompt":"a","priority":8}', "8, expected a whole number of 0 to 7"),
        ('{"prompt":"a","timeout_steps":4294967296}', "whole number of 0 to 4294967295"),
        ('{"prompt":"a","model":""}', "model: empty"),
        ('{"prompt":"a","conversation":"' + "é" * 200 + '"}', "400 bytes, at most 256"),
        ('{"messages":[]}', "a list of 1 to 4096"),
        ('{"messages":"a"}', "a list of 1 to 4096"),
        ('{"messages":["a"]}', r"messages\[0\]"),
        ('{"messages":[{"role":"user"}]}', r"messages\[0\]"),
        ('{"messages":[{"role":"usr","content":"a"}]}', "did you mean 'user'"),
        ('{"messages":[{"role":[1],"content":"a"}]}', r"messages\[0\].role"),
        ('{"messages":[{"role":"user","content":["a"]}]}', r"messages\[0\].content"),
    ],
)  # fmt: skip
def test_what_has_no_single_meaning_is_refused_by_name(text: str, match: str) -> None:
    with pytest.raises(RequestRejected, match=match):
        parse_infer(text.encode(), False)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(RequestRejected, match="not UTF-8 at byte 11"):
        parse_infer(b'{"prompt":"\xff"}', False)


def test_payload_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_BYTES_MAX", 30)
    with pytest.raises(RequestRejected, match="31 bytes, at most 30"):
        parse_infer(b" " * 31, False)
    with pytest.raises(RequestRejected, match="31 bytes, expected 24 to 30"):
        parse_infer(b" " * 31, True)


def binary(tokens: int = 5, temperature: float = 0.5, flags: int = 0, reserved: int = 0,
           seed: int = 0, prompt: bytes = b"hi") -> bytes:  # fmt: skip
    return struct.pack("<IfIIQ", tokens, temperature, flags, reserved, seed) + prompt


def test_binary_form_is_read_at_its_offsets() -> None:
    assert (INFER_HEADER.size, list(INFER_OFFSETS.values())) == (24, [0, 4, 8, 12, 16])
    how = Sampling(temperature=0.5, seed=9)
    want = InferRequest(prompt="hi", tokens_out_max=5, sampling=how, raw=True)
    assert parse_infer(binary(flags=1, seed=9), True) == want
    assert parse_infer(binary(tokens=0), True).tokens_out_max is None
    assert parse_infer(binary(), True).sampling.seed is None


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        (b"", "0 bytes, expected 24"),
        (binary(prompt=b""), "prompt: empty"),
        (binary(prompt=b"\xff"), "not UTF-8 at byte 0"),
        (binary(temperature=float("nan")), "temperature: NaN"),
        (binary(temperature=float("inf")), "temperature: Infinity"),
        (binary(temperature=-1), "temperature: -1.0"),
        (binary(flags=2), "flags 2"),
        (binary(reserved=1), "reserved 1"),
        (binary(seed=1), "seed 1 without flag 1"),
        (binary(tokens=2**32 - 1), "4294967295, expected 0"),
    ],
)
def test_malformed_binary_form_is_refused(payload: bytes, match: str) -> None:
    with pytest.raises(RequestRejected, match=match):
        parse_infer(payload, True)


def test_room_is_arithmetic_and_never_cuts() -> None:
    assert tokens_out(InferRequest(prompt="x"), 10, 96) == 86
    assert tokens_out(InferRequest(prompt="x", tokens_out_max=86), 10, 96) == 86
    with pytest.raises(RequestRejected, match=r"10 tokens and max_tokens = 87 are 97.*at most 96"):
        tokens_out(InferRequest(prompt="x", tokens_out_max=87), 10, 96)
    with pytest.raises(RequestRejected, match=r"96 tokens and 1 to generate are 97.*at most 96"):
        tokens_out(InferRequest(prompt="x"), 96, 96)
    with pytest.raises(RequestRejected, match="0 tokens"):
        tokens_out(InferRequest(prompt="x"), 0, 96)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.sampled_from(module.KEYS), JSON, max_size=4)


@relaxed
@given(FIELDS)
def test_any_json_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        found = parse(**fields)
    except RequestRejected:
        return
    assert (found.prompt is None) != (found.messages is None)


@relaxed
@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_are_read_or_refused(payload: bytes, raw: bool) -> None:
    try:
        parse_infer(payload, raw)
    except RequestRejected:
        pass
