"""The first sampler, of runs without PROPOSALS: against a slow one, and against the next."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.workers.inference import cut, exact
from lockstep.workers.inference.exact import exp
from lockstep.workers.inference.first_sampler import draw, survivors, units
from lockstep.workers.inference.sampling import Sampling

Row = np.ndarray[Any, np.dtype[np.float32]]

LOGITS = st.lists(st.floats(-60, 60, width=32, allow_subnormal=False), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.float32)
)
UNIFORM = st.floats(0, 1, exclude_max=True)
CUTS = [
    Sampling(temperature=1.0, top_p=0.95),
    Sampling(temperature=1.0, top_k=2999, top_p=0.9, min_p=0.01),
    Sampling(temperature=0.7, min_p=0.02),
]

# A loaded machine is slow; that is not a fault of what is tested.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def plain(logits: Row, temperature: float, uniform: float) -> int:
    return draw(logits, Sampling(temperature=temperature), lambda _: uniform)


@pytest.mark.parametrize("block", [7, 100, 1000])
def test_choice_does_not_depend_on_the_size_of_blocks(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    logits = np.sin(np.arange(997, dtype=np.float32)) * 9
    draws = np.arange(0, 1, 0.03)
    whole = [plain(logits, 1.3, float(draw)) for draw in draws]
    monkeypatch.setattr(exact, "BLOCK", block)
    assert [plain(logits, 1.3, float(draw)) for draw in draws] == whole


@relaxed
@given(LOGITS, st.floats(0.05, 10), UNIFORM)
def test_choice_is_the_first_id_whose_running_sum_exceeds_the_draw(
    logits: Row, temperature: float, uniform: float
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
    chosen = plain(logits, temperature, uniform)
    assert chosen == expected
    assert weights[chosen] > 0


@relaxed
@given(LOGITS, st.floats(1e-300, 10))
def test_largest_draw_below_one_takes_an_id_that_can_occur(logits: Row, temperature: float) -> None:
    chosen = plain(logits, temperature, 1 - 2.0**-53)
    assert plain(logits, temperature, 0.0) <= chosen < len(logits)


@relaxed
@given(LOGITS, UNIFORM)
def test_tiny_temperature_takes_a_largest_logit(logits: Row, uniform: float) -> None:
    assert logits[plain(logits, 5e-324, uniform)] == max(logits)


@pytest.mark.parametrize("sampling", CUTS, ids=str)
@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
def test_what_is_left_is_what_sorting_everything_leaves(sampling: Sampling, spread: float) -> None:
    values = np.random.default_rng(5).normal(size=3001) * spread
    logits = np.round(values * 8).astype(np.float32) / 8  # Hundreds of ties.
    ids = sorted(range(logits.size), key=lambda i: (-float(logits[i]), i))
    ids = ids[: sampling.top_k or None]
    weights = exp((logits.astype(np.float64) - np.float64(logits.max())) / sampling.temperature)
    counted = [int(weights[i] * units(logits.size)) for i in ids]
    numerator, denominator = sampling.top_p.as_integer_ratio()
    kept, share = [], 0
    for i, units_of in zip(ids, counted, strict=True):
        if sampling.top_p < 1 and share * denominator >= numerator * sum(counted):
            break
        kept.append(i)
        share += units_of
    wanted = sorted(i for i in kept if weights[i] >= sampling.min_p)
    found, found_weights = survivors(logits, sampling)
    assert found.tolist() == wanted
    assert found_weights.tobytes() == weights[found].tobytes()


def test_sums_of_units_stay_exact_for_the_largest_vocabularies() -> None:
    for vocab in (1, 2, 512, 49_152, 151_936, 1 << 22):
        assert vocab * units(vocab) <= 2.0**52 and units(vocab) == int(units(vocab)) >= 2**29


@pytest.mark.parametrize("sampling", CUTS, ids=str)
def test_both_samplers_leave_the_same_ids(sampling: Sampling) -> None:
    for seed in range(20):
        logits = (np.random.default_rng(seed).normal(size=3001) * 3).astype(np.float32)
        old, new = survivors(logits, sampling)[0], cut.survivors(logits, sampling)
        assert new is not None and old.tolist() == new.tolist()
