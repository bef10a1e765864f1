"""generation_config.json: what of it a request may take, and how it is refused."""

import json
from typing import Any

import pytest

from lockstep.engine.errors import RequestRejected
from lockstep.engine.version import PROPOSALS
from lockstep.workers.inference.generation import Generation, read_generation
from lockstep.workers.inference.sampling import PLAIN, Sampling


def read(**values: Any) -> Generation:
    return read_generation(json.dumps(values).encode())


def test_a_model_that_samples_gives_its_values_and_no_others() -> None:
    found = read(
        do_sample=True, temperature=0.6, top_k=20, top_p=0.95, repetition_penalty=1.05,
        eos_token_id=[1, 2], max_new_tokens=9, min_p=None, transformers_version="4",
    )  # fmt: skip
    assert found.over(PLAIN) == Sampling(
        temperature=0.6, top_k=20, top_p=0.95, repetition_penalty=1.05
    )
    assert list(found.shown) == ["do_sample", "temperature", "top_k", "top_p", "repetition_penalty"]


def test_without_do_sample_a_model_is_greedy_and_without_a_temperature_it_is_1() -> None:
    assert read(temperature=0.6, top_k=5, repetition_penalty=1.2).over(PLAIN) == Sampling(
        repetition_penalty=1.2
    )
    assert read(do_sample=True).over(PLAIN) == Sampling(temperature=1.0)
    assert read(do_sample=False, temperature=0.6).over(PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (None, "the model has no generation_config.json"),
        (b"{", "its generation_config.json is not valid JSON"),
        (b"[]", "its generation_config.json is no JSON object"),
        (b'{"do_sample": true, "top_p": 7}', "in its generation_config.json top_p: 7, expected"),
        (b'{"do_sample": "yes"}', 'in its generation_config.json do_sample: "yes"'),
    ],
)
def test_what_cannot_be_taken_is_refused_to_those_who_ask(data: bytes | None, match: str) -> None:
    with pytest.raises(RequestRejected, match=f'defaults: "model", but {match}'):
        read_generation(data).over(PLAIN)


def test_runs_of_older_rules_hear_it_as_they_did() -> None:
    with pytest.raises(RequestRejected) as caught:
        read_generation(b'{"do_sample": "yes"}').over(PLAIN)
    where = 'defaults: "model", but in its generation_config.json do_sample: '
    assert str(caught.value).startswith(f'{where}"yes", ')
    assert caught.value.said(PROPOSALS).startswith(f"{where}'yes', ")
