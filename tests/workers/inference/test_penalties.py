"""Penalties against their formulas, one token at a time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.workers.inference.penalties import FLOAT32_MAX, forbidden, penalised
from lockstep.workers.inference.sampling import Sampling

Row = np.ndarray[Any, np.dtype[np.float32]]
LOGITS = st.lists(st.floats(-60, 60, width=32), min_size=9, max_size=9).map(
    lambda values: np.array(values, np.float32)
)
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(
    LOGITS,
    st.sets(st.integers(0, 8)),
    st.dictionaries(st.integers(0, 8), st.integers(1, 5)),
    st.floats(0.1, 3),
    st.floats(-2, 2),
    st.floats(-2, 2),
)
def test_each_token_has_its_formula(
    logits: Row, prompt: set[int], answer: dict[int, int], r: float, p: float, f: float
) -> None:
    before = logits.tobytes()
    sampling = Sampling(repetition_penalty=r, presence_penalty=p, frequency_penalty=f)
    changed = penalised(logits, sorted(prompt), answer, sampling)
    for token, logit in enumerate(logits.tolist()):
        if token in answer or (token in prompt and r != 1):
            logit = logit / r if logit > 0 else logit * r
        if token in answer:
            logit = logit - f * answer[token] - p
        assert changed[token] == np.float32(logit)
    assert logits.tobytes() == before


def test_the_order_in_which_tokens_were_seen_changes_no_bit() -> None:
    logits = np.linspace(-9, 9, 40, dtype=np.float32)
    sampling = Sampling(repetition_penalty=1.3, presence_penalty=0.7, frequency_penalty=0.1)
    answer = {3: 1, 30: 4, 12: 2}
    one = penalised(logits, [1, 2, 3], answer, sampling)
    other = penalised(logits, [3, 2, 1], dict(reversed(answer.items())), sampling)
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("penalty", [5e-324, 1e-30, 100.0])
def test_a_penalty_never_makes_a_row_invalid(penalty: float) -> None:
    logits = np.array([FLOAT32_MAX, 3.0, 0.0, -3.0, -FLOAT32_MAX], np.float32)
    changed = penalised(logits, range(5), {}, Sampling(repetition_penalty=penalty))
    assert np.isfinite(changed).all() and changed[2] == 0
    assert (np.diff(changed) <= 0).all()


def test_forbidden_tokens_have_no_chance_and_the_row_is_copied() -> None:
    logits = np.arange(5, dtype=np.float32)
    assert forbidden(logits, (4, 1)).tolist() == [0, -np.inf, 2, 3, -np.inf]
    assert logits.tolist() == [0, 1, 2, 3, 4]
