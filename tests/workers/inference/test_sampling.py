"""Sampling parameters: what is read, what is refused, what is said to be in force."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.errors import RequestRejected
from lockstep.workers.inference.fields import Fields
from lockstep.workers.inference.sampling import KEYS, PLAIN, Sampling, read_sampling


def read(**found: Any) -> Sampling:
    return read_sampling(Fields(found))


def test_every_parameter_is_read() -> None:
    given = {
        "temperature": 0.5, "top_k": 40, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1,
        "presence_penalty": -1, "frequency_penalty": 2, "seed": 7, "n": 64, "stop": ["a", "b"],
        "stop_token_ids": [9, 3, 9], "ignore_eos": True, "min_tokens": 2, "logprobs": True,
        "top_logprobs": 20, "defaults": "model",
    }  # fmt: skip
    assert read(**given) == Sampling(
        temperature=0.5, top_k=40, top_p=0.9, min_p=0.1, repetition_penalty=1.1,
        presence_penalty=-1.0, frequency_penalty=2.0, seed=7, n=64, stop=("a", "b"),
        stop_token_ids=(3, 9), ignore_eos=True, min_tokens=2, logprobs=20, model_defaults=True,
        given=KEYS,
    )  # fmt: skip
    assert set(given) == set(KEYS)
    assert read() == PLAIN


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"top_k": -1}, "top_k", 0),
        ({"top_k": 0}, "top_k", 0),
        ({"stop": "x"}, "stop", ("x",)),
        ({"stop": []}, "stop", ()),
        ({"logprobs": 5}, "logprobs", 5),
        ({"logprobs": 0}, "logprobs", 0),
        ({"logprobs": True}, "logprobs", 0),
        ({"logprobs": False}, "logprobs", None),
        ({"defaults": "lockstep"}, "model_defaults", False),
        ({"temperature": -0.0}, "temperature", 0.0),
    ],
)
def test_spellings_with_one_meaning(given: dict[str, Any], name: str, value: object) -> None:
    assert repr(getattr(read(**given), name)) == repr(value)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"top_k": -2}, "top_k: -2, expected a whole number of -1 to 2147483647"),
        ({"top_k": 1.0}, "top_k: 1.0, expected a whole number"),
        ({"top_p": 0}, "top_p: 0, expected more than 0, at most 1.0"),
        ({"top_p": 1.01}, "top_p: 1.01, expected more than 0"),
        ({"min_p": -0.1}, "min_p: -0.1, expected 0 to 1.0"),
        ({"min_p": True}, "min_p: true, expected 0 to 1.0"),
        ({"repetition_penalty": 0}, "repetition_penalty: 0, expected more than 0, at most 100"),
        ({"presence_penalty": 2.1}, "presence_penalty: 2.1, expected -2 to 2.0"),
        ({"frequency_penalty": -3}, "frequency_penalty: -3, expected -2 to 2.0"),
        ({"n": 0}, "n: 0, expected a whole number of 1 to 64"),
        ({"n": 65}, "n: 65, expected a whole number of 1 to 64"),
        ({"stop": [""]}, "stop: empty"),
        ({"stop": None}, "stop: null, expected text"),
        ({"stop": ["a"] * 17}, "stop: 17 of them, expected a list of at most 16"),
        ({"stop": [5]}, "stop: 5, expected text"),
        ({"stop": "é" * 513}, "stop: 1026 bytes, at most 1024"),
        ({"stop_token_ids": 5}, "stop_token_ids: 5, expected a list of at most 128"),
        ({"stop_token_ids": [-1]}, "stop_token_ids: -1, expected a whole number"),
        ({"stop_token_ids": [True]}, "stop_token_ids: true, expected a whole number"),
        ({"ignore_eos": 1}, "ignore_eos: 1, expected true or false"),
        ({"min_tokens": -1}, "min_tokens: -1"),
        ({"logprobs": 21}, "logprobs: 21, expected a whole number of 0 to 20"),
        ({"logprobs": "yes"}, 'logprobs: "yes"'),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs: 21"),
        ({"top_logprobs": 3}, 'top_logprobs: needs "logprobs": true'),
        ({"logprobs": 3, "top_logprobs": 3}, "beside it, not a number"),
        ({"defaults": "modle"}, "defaults: \"modle\" is unknown; did you mean 'model'"),
        ({"defaults": [1]}, "defaults: "),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(given: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestRejected, match=match):
        read(**given)


def test_every_parameter_is_in_the_table_of_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs/requests.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(f"`{key}`" for key in (*KEYS, "ordinal"))


def test_every_value_in_force_is_said() -> None:
    said = PLAIN.in_force(12)
    names = {field.name for field in fields(Sampling)} - {"given", "model_defaults"}
    assert set(said) == names | {"max_tokens", "defaults"}
    assert (said["max_tokens"], said["seed"], said["defaults"]) == (12, None, "lockstep")


def test_a_models_defaults_count_for_what_was_not_given() -> None:
    asked = read(temperature=0.0, defaults="model")
    mixed = asked.over({"temperature": 0.8, "top_k": 20})
    assert (mixed.temperature, mixed.top_k) == (0.0, 20)
    assert mixed.in_force(1)["defaults"] == "model"
