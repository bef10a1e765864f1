"""The sampler: its draws against a slow one, and against the distribution that they are of."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.engine import keyed
from lockstep.workers.inference.sampler import draw, finite, likeliest
from lockstep.workers.inference.sampling import Sampling

Row = np.ndarray[Any, np.dtype[np.float32]]

LOGITS = st.lists(st.floats(-60, 60, width=32, allow_subnormal=False), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.float32)
)
UNIFORM = st.integers(0, 2**53 - 1).map(lambda draw: draw / 2**53)

# A loaded machine is slow; that is not a fault of what is tested.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(LOGITS, st.sampled_from([0.0, 5e-324, 9e-6]), UNIFORM)
def test_the_lowest_temperatures_take_the_lowest_id_among_the_largest(
    logits: Row, temperature: float, uniform: float
) -> None:
    chosen = draw(logits, Sampling(temperature=temperature), lambda _: uniform)
    assert chosen == min(i for i in range(len(logits)) if logits[i] == max(logits))


def chi_square(logits: Row, sampling: Sampling, draws: int, name: str) -> tuple[float, int]:
    """Of so many draws against the softmax, and its degrees of freedom; rare ids are one."""
    x = (logits.astype(np.float64) - float(logits.max())) / sampling.temperature
    weights = np.array([math.exp(value) for value in x])
    expected = weights / weights.sum() * draws
    stream = keyed.key(0, "test", name)
    drawn = [draw(logits, sampling, partial(keyed.uniform, stream, n)) for n in range(draws)]
    seen = np.bincount(drawn, minlength=logits.size)
    often = expected >= 10
    pairs = [*zip(seen[often], expected[often], strict=True)]
    if (~often).any():
        pairs.append((seen[~often].sum(), expected[~often].sum()))
    return sum((s - e) ** 2 / e for s, e in pairs), len(pairs) - 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("spread", [0.1, 2.0, 6.0])
def test_draws_follow_the_softmax(spread: float, temperature: float) -> None:
    logits = (np.random.default_rng(8).normal(size=200) * spread).astype(np.float32)
    name = f"{spread} {temperature}"
    found, freedom = chi_square(logits, Sampling(temperature=temperature), 10_000, name)
    # Wilson and Hilferty 1931: its cube root is all but normal. 4 of them: one in 30,000.
    spread_of = 2 / (9 * freedom)
    assert ((found / freedom) ** (1 / 3) - (1 - spread_of)) / math.sqrt(spread_of) < 4


@relaxed
@given(LOGITS, st.floats(0.05, 10), st.text())
def test_cuts_that_cut_nothing_change_nothing(logits: Row, temperature: float, name: str) -> None:
    uniforms = partial(keyed.uniform, keyed.key(0, "test", name))
    plain = draw(logits, Sampling(temperature=temperature), uniforms)
    for more in ({"top_k": len(logits)}, {"top_k": 2**31 - 1}):
        sampling = Sampling(temperature=temperature, **more)  # type: ignore[arg-type]
        assert draw(logits, sampling, uniforms) == plain


@relaxed
@given(LOGITS, UNIFORM)
def test_top_k_of_one_is_greedy_at_any_temperature(logits: Row, uniform: float) -> None:
    greedy = draw(logits, Sampling(), lambda _: uniform)
    for temperature in (0.01, 1.0, 10.0):
        assert draw(logits, Sampling(temperature=temperature, top_k=1), lambda _: 0.0) == greedy
    assert draw(logits, Sampling(top_k=5, top_p=0.5, min_p=0.5), lambda _: uniform) == greedy


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_row_with_one_bad_value_is_not_finite(value: float) -> None:
    logits = np.zeros(512, np.float32)
    assert finite(logits)
    logits[511] = value
    assert not finite(logits)
    assert likeliest(logits) is None


@relaxed
@given(LOGITS)
def test_the_likeliest_is_the_greedy_choice(logits: Row) -> None:
    assert likeliest(logits) == draw(logits, Sampling(), lambda _: 0.0)
