"""The sampler: its exp against libm, its choice against a slow one."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.workers.inference import sampler
from lockstep.workers.inference.sampler import X_MAX, choose, exp, finite

LOGITS = st.lists(st.floats(-60, 60, width=32, allow_subnormal=False), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.float32)
)
GOLDEN = {
    -0.1: "0x1.cf46d99d52b3ap-1",
    -1.0: "0x1.78b56362cef38p-2",
    -2.5: "0x1.50385c094f425p-4",
    -17.25: "0x1.14f49dbc5078cp-25",
    -300.0: "0x1.245639c3a49f7p-433",
}
UNIFORM = st.floats(0, 1, exclude_max=True)

# A loaded machine is slow; that is not a fault of what is tested.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_exp_is_within_1e_15_of_libm_over_the_whole_range() -> None:
    x = np.concatenate([np.linspace(-708, X_MAX, 100_001), np.linspace(-1, 1, 100_001)])
    want = np.array([math.exp(value) for value in x])
    assert float(np.max(np.abs(exp(x) / want - 1))) < 1e-15


def test_exp_of_zero_is_one_and_far_below_is_zero() -> None:
    assert exp(np.array([0.0, -0.0])).tolist() == [1.0, 1.0]
    assert exp(np.array([-746.0, -1e300, -np.inf])).tolist() == [0.0, 0.0, 0.0]
    assert exp(np.array([-745.0])).tolist() == [5e-324]


def test_exp_of_a_value_does_not_depend_on_its_neighbours() -> None:
    x = np.linspace(-40, 0, 10_001)
    alone = np.concatenate([exp(x[i : i + 1]) for i in range(0, 10_001, 37)])
    assert exp(x)[::37].tobytes() == alone.tobytes()


@pytest.mark.parametrize("block", [7, 100, 1000])
def test_choice_does_not_depend_on_the_size_of_blocks(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    logits = np.sin(np.arange(997, dtype=np.float32)) * 9
    draws = np.arange(0, 1, 0.03)
    whole = [choose(logits, 1.3, float(draw)) for draw in draws]
    monkeypatch.setattr(sampler, "BLOCK", block)
    assert [choose(logits, 1.3, float(draw)) for draw in draws] == whole


def test_exp_never_falls_across_the_borders_of_its_ranges() -> None:
    for k in range(-1000, 1000, 7):
        border = (k + 0.5) * math.log(2)
        if border < -700 or border > 700:
            continue
        width = max(1.0, abs(border)) * 1e-14
        x = border + np.arange(-50, 51) * width
        assert (np.diff(exp(x)) >= 0).all()


def test_exp_has_the_bits_it_always_had() -> None:
    # Golden: a change here changes sampled tokens of recorded runs.
    assert [value.hex() for value in exp(np.array(list(GOLDEN))).tolist()] == list(GOLDEN.values())


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
