"""Log-probabilities against libm, rounded, with one order among equals."""

import math
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.workers.inference import first_sampler
from lockstep.workers.inference.logprobs import LOWEST, Scored, scores, spelled, total_of
from lockstep.workers.inference.token_name import TokenName

Row = np.ndarray[Any, np.dtype[np.float32]]
LOGITS = st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.float32)
)
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(LOGITS, st.integers(0, 25), st.integers(0, 59))
def test_they_are_those_of_a_softmax_to_four_digits(logits: Row, top: int, drawn: int) -> None:
    drawn %= len(logits)
    values = logits.astype(np.float64).tolist()
    total = math.log(math.fsum(math.exp(v - max(values)) for v in values)) + max(values)
    found = scores(logits, drawn, top, total_of(logits))
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert [scored.token for scored in found] == [drawn, *order[:top]]
    for token, steps in found:
        assert abs(steps / 10_000 - (values[token] - total)) <= 0.5e-4 + 5e-6


def test_they_have_the_bits_they_always_had() -> None:
    # Golden: recorded runs have them.
    logits = (np.arange(1000) * 7919 % 1001 / 100).astype(np.float32)
    assert scores(logits, 3, 3, total_of(logits)) == GOLDEN
    assert scores(logits, 3, 3, first_sampler.total_of(logits)) == GOLDEN


GOLDEN = (Scored(3, -72701), Scored(45, -46101), Scored(90, -46201), Scored(135, -46301))


def test_what_is_hopeless_has_the_lowest_and_json_has_one_spelling() -> None:
    logits = np.array([3e38, -3e38, 0.0], np.float32)
    found = scores(logits, 1, 1, total_of(logits))
    assert found == (Scored(1, LOWEST), Scored(0, 0))
    assert spelled(found, None) == {
        "token_id": 1, "logprob": -9999.0, "top_logprobs": [{"token_id": 0, "logprob": 0.0}],
    }  # fmt: skip
    assert str(spelled((Scored(5, -3271),), None)["logprob"]) == "-0.3271"


def test_they_say_what_their_tokens_are() -> None:
    names = {5: TokenName(" né", b" n\xc3\xa9"), 6: TokenName("\ufffd", b"\xc3")}
    assert spelled((Scored(5, -1), Scored(6, -20_000)), names.__getitem__) == {
        "token_id": 5, "token": " né", "bytes": [32, 110, 195, 169], "logprob": -0.0001,
        "top_logprobs": [{"token_id": 6, "token": "\ufffd", "bytes": [195], "logprob": -2.0}],
    }  # fmt: skip
