"""Proposal and acceptance: the bound is one, and what is drawn is what the rule says."""

import math
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.workers.inference import proposal
from lockstep.workers.inference.cut import reaching
from lockstep.workers.inference.exact import exp, exp_of
from lockstep.workers.inference.proposal import FAR, LARGEST, PROPOSALS_MAX, bound, drawn, summed
from lockstep.workers.inference.sampling import TEMPERATURE_LEAST
from lockstep.workers.inference.weights import GROUP, group_sums

Row = np.ndarray[Any, np.dtype[np.float32]]

LOGITS = st.lists(st.floats(-60, 60, width=32, allow_subnormal=False), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.float32)
)
UNIFORMS = st.lists(st.integers(0, 2**53 - 1), min_size=2 * PROPOSALS_MAX).map(
    lambda draws: [draw / 2**53 for draw in draws]
)
GOLDEN = {
    0.0: 2164260864.0,
    -0.25: 1769996288.0,
    -1.0: 838860800.0,
    -7.5: 1245184.0,
    -16.5: 154.0,
    -20.0: 128.0,
}

# A loaded machine is slow; that is not a fault of what is tested.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rows(seed: int, count: int) -> tuple[Row, float]:
    """Logits of all distances that count, and a temperature."""
    rng = np.random.default_rng(seed)
    temperature = 10.0 ** rng.uniform(-5, 1)
    logits = rng.uniform(-20 * temperature, 0, count) + rng.normal() * 10
    return logits.astype(np.float32), temperature


def scalar(logit: float, most: float, temperature: float) -> float:
    """A bound by its definition, in whole numbers; each product and difference a float32."""
    scale = np.float32(128 * proposal.LOG2_E / temperature)
    behind = np.float32(np.float32(logit) - np.float32(most))
    # Half a step is rounded to even as float32 counts: as a whole, with all that was added.
    n = round(float(np.float32(behind * scale)) + proposal.HIGHEST) - round(proposal.ROUNDING)
    n = max(n, 0)
    return math.ldexp(128 + n % 128, n // 128)


@pytest.mark.parametrize("seed", range(10))
def test_a_bound_is_what_whole_numbers_make_of_it(seed: int) -> None:
    logits, temperature = rows(seed, 10_000)
    most = float(logits.max())
    wanted = [scalar(each, most, temperature) for each in logits.tolist()]
    assert bound(logits, logits.max(), temperature).tolist() == wanted


def test_a_bound_is_one_and_no_loose_one() -> None:
    for seed in range(50):
        logits, temperature = rows(seed, 5_000)
        x = (logits.astype(np.float64) - float(logits.max())) / temperature
        bounds = bound(logits, logits.max(), temperature).astype(np.float64)
        share = exp(x) * LARGEST / bounds
        assert share.max() <= 1
        near = x > -24 * math.log(2)
        assert share[near].min() > 0.92  # Less the bound's own step, 2 of 128, 0.942 of 2^t.
        assert np.all(bounds[~near] <= 129)


def test_sums_of_bounds_of_the_largest_vocabularies_stay_exact() -> None:
    logits = np.zeros(1 << 20, np.float32)
    bounds = bound(logits, logits.max(), 1.0)
    assert bounds.max() == LARGEST * (1 + 1 / 128)
    assert float(bounds.max()) * (1 << 20) < 2**53


@relaxed
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3 * GROUP + 1),
    st.sampled_from([0.0, 0.001, 0.2, 0.5, 1.0]),
    st.floats(TEMPERATURE_LEAST, 10),
    st.sampled_from([0.0, 1.0, 1e30, -3e38]),
)
def test_a_row_of_which_most_is_far_below_has_the_same_bounds_and_sums(
    seed: int, size: int, share: float, temperature: float, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    near = rng.uniform(-30 * temperature, 0, size) + offset
    far = rng.choice([-np.inf, offset - 40 * temperature, offset - 17.4 * temperature], size)
    logits = np.where(rng.random(size) < share, near, far).astype(np.float32)
    logits[rng.integers(size)] = offset
    bounds, sums = summed(logits, logits.max(), temperature)
    wanted = bound(logits, logits.max(), temperature)
    assert bounds.tobytes() == wanted.tobytes()
    assert sums.tobytes() == group_sums(wanted).tobytes()


def test_a_row_is_looked_at_in_both_ways() -> None:
    # The test above compares nothing if one way is never taken.
    logits = np.full(1000, -90, np.float32)
    assert reaching(logits, np.float32(0), 1.0, FAR).tolist() == []  # type: ignore[union-attr]
    assert reaching(logits, np.float32(-90), 1.0, FAR) is None


def test_bounds_have_the_bits_they_always_had() -> None:
    # Golden: a change here changes sampled tokens of recorded runs.
    logits = np.array(list(GOLDEN), np.float32)
    assert bound(logits, np.float32(0), 1.0).tolist() == list(GOLDEN.values())


@pytest.mark.parametrize("block", [7, 100])
def test_a_bound_does_not_depend_on_the_size_of_blocks(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    logits, temperature = rows(3, 997)
    whole = bound(logits, logits.max(), temperature)
    monkeypatch.setattr(proposal, "BLOCK", block)
    assert bound(logits, logits.max(), temperature).tobytes() == whole.tobytes()


@relaxed
@given(LOGITS, st.floats(TEMPERATURE_LEAST, 10), UNIFORMS)
def test_a_token_is_proposed_by_its_bound_and_accepted_by_its_probability(
    logits: Row, temperature: float, uniforms: list[float]
) -> None:
    most = float(logits.max())
    bounds = [int(each) for each in bound(logits, logits.max(), temperature).tolist()]
    for proposed, accepted in zip(uniforms[::2], uniforms[1::2], strict=False):
        wanted = math.floor(Fraction(proposed) * sum(bounds))
        place = next(n for n, reached in enumerate(accumulate(bounds)) if reached > wanted)
        weight = exp_of((float(logits[place]) - most) / temperature) * LARGEST
        if accepted * bounds[place] < weight:
            break
    assert drawn(logits, temperature, uniforms.__getitem__) == place


def test_what_can_never_occur_is_never_drawn() -> None:
    logits = np.array([0.0, -np.inf, -3e38, 0.0], np.float32)
    for first in np.arange(0, 1, 1 / 64):
        # Whatever is proposed first, it is proposed again and again until it is accepted.
        uniforms = [float(first), 0.0, *[0.999, 0.0] * PROPOSALS_MAX]
        for temperature in (TEMPERATURE_LEAST, 1.0, 10.0):
            assert drawn(logits, temperature, uniforms.__getitem__) in (0, 3)


def test_it_ends_even_if_everything_is_refused() -> None:
    asked: list[int] = []

    def refused(number: int) -> float:
        asked.append(number)
        return 1 - 2.0**-53

    assert drawn(np.array([0.0, -90.0], np.float32), 1.0, refused) == 1
    assert asked == list(range(2 * PROPOSALS_MAX))
