"""Weights, against one operation at a time in Python's own numbers, and against libm."""

import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.workers.inference import weights
from lockstep.workers.inference.exact import LOG2_E
from lockstep.workers.inference.weights import COEFFICIENTS, LARGEST, pick, total, weigh

Row = np.ndarray[Any, np.dtype[np.float32]]

UNIFORM = st.integers(0, 2**53 - 1).map(lambda draw: draw / 2**53)
WHOLE = st.lists(st.integers(0, 2**32), min_size=1, max_size=700).map(
    lambda values: np.array([*values, 2**32], np.float32)
)
GOLDEN = {
    0.0: 4294967296.0,
    -0.25: 3344923904.0,
    -1.0: 1580030208.0,
    -7.5: 2375480.0,
    -21.0: 3.0,
    -23.5: 0.0,
}

# A loaded machine is slow; that is not a fault of what is tested.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def by_doubles(value: float) -> float:
    """To the nearest float32. A sum or product of two of them is not hurt by a float64 between."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def by_fractions(value: Fraction | float) -> Fraction:
    """To the nearest float32, halves to even: what IEEE 754 says, in whole numbers."""
    value = Fraction(value)
    if value == 0:
        return value
    exponent = math.frexp(float(value))[1] - 24
    if abs(value) < Fraction(2) ** (exponent + 23):  # float(value) was rounded up to a power.
        exponent -= 1
    return round(value / Fraction(2) ** exponent) * Fraction(2) ** exponent


def scalar(logit: float, most: float, temperature: float, rounded: Any) -> int:
    """The weight of one logit, step by step."""
    scale = rounded(LOG2_E / temperature)
    t = rounded(rounded(type(scale)(logit) - type(scale)(most)) * scale)
    t = max(t, type(scale)(-40))
    k = round(t)  # Halves to even.
    f = rounded(t - k)
    value = rounded(f * type(scale)(COEFFICIENTS[0]))
    for coefficient in COEFFICIENTS[1:]:
        value = rounded(rounded(value + type(scale)(coefficient)) * f)
    value = rounded(value + type(scale)(LARGEST))
    return round(value * type(scale)(2) ** k)


def rows(seed: int, count: int) -> tuple[Row, float]:
    """Logits of all distances that count, and a temperature."""
    rng = np.random.default_rng(seed)
    temperature = float(rng.uniform(0.01, 10))
    logits = rng.uniform(-25 * temperature, 0, count) + rng.normal() * 10
    return logits.astype(np.float32), temperature


@pytest.mark.parametrize("seed", range(10))
def test_a_weight_is_what_one_operation_after_the_other_makes_of_it(seed: int) -> None:
    logits, temperature = rows(seed, 10_000)
    most = float(logits.max())
    wanted = [scalar(each, most, temperature, by_doubles) for each in logits.tolist()]
    assert weigh(logits, np.float32(most), temperature).tolist() == wanted


def test_a_weight_is_what_exact_fractions_make_of_it() -> None:
    logits, temperature = rows(99, 1_000)
    most = float(logits.max())
    wanted = [scalar(each, most, temperature, by_fractions) for each in logits.tolist()]
    assert weigh(logits, np.float32(most), temperature).tolist() == wanted


def test_a_weight_is_the_exponential_within_its_bounds() -> None:
    for seed in range(20):
        logits, temperature = rows(seed, 5_000)
        x = (logits.astype(np.float64) - float(logits.max())) / temperature
        want = np.array([math.exp(value) for value in x]) * LARGEST
        error = np.abs(weigh(logits, logits.max(), temperature) - want)
        assert (error <= 0.51 + want * (2.0**-22 - x * 2.0**-22)).all()


def test_the_largest_has_the_whole_weight_and_none_has_more() -> None:
    for seed in range(20):
        logits, temperature = rows(seed, 5_000)
        found = weigh(logits, logits.max(), temperature)
        assert found.max() == found[logits.argmax()] == LARGEST == 2**32
        assert (found == np.rint(found)).all() and found.min() >= 0


def test_what_is_far_below_has_no_weight() -> None:
    least = np.finfo(np.float32).min
    logits = np.array([3e38, 3e38, 0.0, -3e38, least, -np.inf], np.float32)
    for temperature in (1e-5, 1.0, 10.0):
        found = weigh(logits, logits.max(), temperature).tolist()
        assert found == [LARGEST, LARGEST, 0.0, 0.0, 0.0, 0.0]
    behind = np.array([0.0, -22.8, -22.9, -24.0], np.float32)  # 33 doublings are 22.87.
    assert weigh(behind, behind.max(), 1.0).tolist() == [LARGEST, 1.0, 0.0, 0.0]


def test_a_weight_does_not_depend_on_neighbours_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, temperature = rows(4, 3_001)
    most = logits.max()
    whole = weigh(logits, most, temperature)
    alone = [weigh(logits[i : i + 1], most, temperature) for i in range(0, 3_001, 37)]
    assert whole[::37].tobytes() == np.concatenate(alone).tobytes()
    assert whole[1::2].tobytes() == weigh(logits[1::2], most, temperature).tobytes()
    monkeypatch.setattr(weights, "BLOCK", 100)
    assert weigh(logits, most, temperature).tobytes() == whole.tobytes()


def test_weights_have_the_bits_they_always_had() -> None:
    # Golden: a change here changes sampled tokens of recorded runs.
    logits = np.array(list(GOLDEN), np.float32)
    assert weigh(logits, np.float32(0), 1.0).tolist() == list(GOLDEN.values())


@relaxed
@given(WHOLE, UNIFORM)
def test_a_pick_is_the_first_running_sum_above_the_draw(row: Row, uniform: float) -> None:
    drawn = math.floor(Fraction(uniform) * sum(map(int, row.tolist())))
    running, wanted = 0, -1
    for place, weight in enumerate(row.tolist()):
        running += int(weight)
        if wanted < 0 and running > drawn:
            wanted = place
    assert pick(row, uniform) == wanted
    assert row[pick(row, uniform)] > 0


@pytest.mark.parametrize("group", [1, 7, 10_000])
def test_a_pick_does_not_depend_on_groups(monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    logits, temperature = rows(6, 1_003)
    found = weigh(logits, logits.max(), temperature)
    draws = np.arange(0, 1, 1 / 256)
    whole = [pick(found, float(draw)) for draw in draws]
    monkeypatch.setattr(weights, "GROUP", group)
    assert [pick(found, float(draw)) for draw in draws] == whole


def test_sums_of_the_largest_vocabularies_stay_exact() -> None:
    vocab = 1 << 20
    found = np.full(vocab, LARGEST, np.float32)
    found[-1] = 1.0
    assert total(found) * LARGEST == LARGEST * (vocab - 1) + 1
    assert pick(found, 1 - 2.0**-53) == vocab - 1
    assert pick(found, 1 - 2.0**-51) == vocab - 2
    assert pick(found, 0.0) == 0
