"""The sampler: its choice against a slow one."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.workers.inference import exact
from lockstep.workers.inference.exact import exp
from lockstep.workers.inference.sampler import choose, draw, finite, likeliest
from lockstep.workers.inference.sampling import Sampling

LOGITS = st.lists(st.floats(-60, 60, width=32, allow_subnormal=False), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.float32)
)
UNIFORM = st.floats(0, 1, exclude_max=True)

# A loaded machine is slow; that is not a fault of what is tested.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("block", [7, 100, 1000])
def test_choice_does_not_depend_on_the_size_of_blocks(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    logits = np.sin(np.arange(997, dtype=np.float32)) * 9
    draws = np.arange(0, 1, 0.03)
    whole = [choose(logits, 1.3, float(draw)) for draw in draws]
    monkeypatch.setattr(exact, "BLOCK", block)
    assert [choose(logits, 1.3, float(draw)) for draw in draws] == whole


@relaxed
@given(LOGITS)
def test_temperature_zero_takes_the_lowest_id_among_the_largest(
    logits: np.ndarray,  # type: ignore[type-arg]
) -> None:
    chosen = choose(logits, 0, 0.5)
    assert chosen == min(i for i in range(len(logits)) if logits[i] == max(logits))


@relaxed
@given(LOGITS, st.floats(0.05, 10), UNIFORM)
def test_choice_is_the_first_id_whose_running_sum_exceeds_the_draw(
    logits: np.ndarray,  # type: ignore[type-arg]
    temperature: float,
    uniform: float,
) -> None:
    wide = logits.astype(np.float64)
    weights = exp((wide - wide.max()) / temperature)
    total = 0.0
    for weight in weights.tolist():
        total += weight
    running, expected = 0.0, None
    for index, weight in enumerate(weights.tolist()):
        running += weight
        if expected is None and running > uniform * total:
            expected = index
    chosen = choose(logits, temperature, uniform)
    assert chosen == expected
    assert weights[chosen] > 0


@relaxed
@given(LOGITS, st.floats(1e-300, 10))
def test_largest_draw_below_one_takes_an_id_that_can_occur(
    logits: np.ndarray,  # type: ignore[type-arg]
    temperature: float,
) -> None:
    chosen = choose(logits, temperature, 1 - 2.0**-53)
    assert 0 <= chosen < len(logits)
    lowest = choose(logits, temperature, 0.0)
    assert lowest <= chosen


@relaxed
@given(LOGITS, UNIFORM)
def test_tiny_temperature_takes_a_largest_logit(
    logits: np.ndarray,  # type: ignore[type-arg]
    uniform: float,
) -> None:
    assert logits[choose(logits, 5e-324, uniform)] == max(logits)


@settings(relaxed, max_examples=20)
@given(st.integers(0, 2**32))
def test_frequencies_follow_the_weights(seed: int) -> None:
    logits = np.log(np.array([1, 2, 3, 4], np.float32))
    draws = (np.arange(1000) + (seed % 997) / 997) / 1000
    counts = np.bincount([choose(logits, 1.0, float(u)) for u in draws], minlength=4)
    assert np.abs(counts - [100, 200, 300, 400]).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_row_with_one_bad_value_is_not_finite(value: float) -> None:
    logits = np.zeros(512, np.float32)
    assert finite(logits)
    logits[511] = value
    assert not finite(logits)
    assert likeliest(logits) is None


@relaxed
@given(LOGITS)
def test_the_likeliest_is_the_greedy_choice(
    logits: np.ndarray,  # type: ignore[type-arg]
) -> None:
    assert likeliest(logits) == choose(logits, 0, 0.0)


@relaxed
@given(LOGITS, st.floats(0.05, 10), UNIFORM)
def test_cuts_that_cut_nothing_change_nothing(
    logits: np.ndarray,  # type: ignore[type-arg]
    temperature: float,
    uniform: float,
) -> None:
    plain = choose(logits, temperature, uniform)
    for cut in ({"top_k": len(logits)}, {"min_p": 5e-324}, {"top_k": 2**31 - 1}):
        weights = exp((logits.astype(np.float64) - np.float64(logits.max())) / temperature)
        if cut.get("min_p") and not weights.all():
            continue
        sampling = Sampling(temperature=temperature, **cut)  # type: ignore[arg-type]
        assert draw(logits, sampling, uniform) == plain


@relaxed
@given(LOGITS, UNIFORM)
def test_top_k_of_one_is_greedy_at_any_temperature(
    logits: np.ndarray,  # type: ignore[type-arg]
    uniform: float,
) -> None:
    greedy = choose(logits, 0, 0.0)
    for temperature in (0.01, 1.0, 10.0):
        assert draw(logits, Sampling(temperature=temperature, top_k=1), uniform) == greedy
    assert draw(logits, Sampling(top_k=5, top_p=0.5, min_p=0.5), uniform) == greedy
