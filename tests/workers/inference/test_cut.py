"""What top_k, top_p and min_p leave, against a model of a few lines that sorts everything."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.workers.inference import cut
from lockstep.workers.inference.cut import in_order, largest, survivors
from lockstep.workers.inference.sampling import TEMPERATURE_LEAST, Sampling
from lockstep.workers.inference.weights import LARGEST, weigh

Row = np.ndarray[Any, np.dtype[np.float32]]

# Few different values, so that ties are common, and some that nothing is likely to reach.
VALUE = st.sampled_from([-1e30, -40.0, -3.0, -1.5, 0.0, 0.25, 0.5, 1.0, 7.0]) | st.floats(
    -20, 20, width=32, allow_subnormal=False
)
LOGITS = st.lists(VALUE, min_size=1, max_size=90).map(lambda values: np.array(values, np.float32))
SAMPLING = st.builds(
    Sampling,
    temperature=st.floats(0.05, 10),
    top_k=st.integers(0, 40),
    top_p=st.floats(1e-6, 1),
    min_p=st.sampled_from([0.0, 1e-9, 0.05, 0.5, 1.0]) | st.floats(0, 1),
)
MIN_P = st.builds(
    Sampling,
    temperature=st.floats(TEMPERATURE_LEAST, 10),
    min_p=st.sampled_from([5e-324, 1e-320, 1e-300, 0.05, 1.0]) | st.floats(5e-324, 1),
)
WIDE = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1).map(
    lambda values: np.array(values, np.float32)
)

# A loaded machine is slow; that is not a fault of what is tested.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def model(logits: Row, sampling: Sampling) -> list[int]:
    """Sort everything; whole numbers for shares."""
    ids = sorted(range(len(logits)), key=lambda i: (-float(logits[i]), i))
    ids = ids[: sampling.top_k or None]
    weights = weigh(logits, logits.max(), sampling.temperature).tolist()
    if sampling.top_p < 1:
        counted = [int(weights[i]) for i in ids]
        numerator, denominator = sampling.top_p.as_integer_ratio()
        kept, share = [], 0
        for i, units_of in zip(ids, counted, strict=True):
            if share * denominator >= numerator * sum(counted):
                break
            kept.append(i)
            share += units_of
        ids = kept
    return sorted(i for i in ids if weights[i] >= sampling.min_p * LARGEST)


def left(logits: Row, sampling: Sampling) -> list[int]:
    """Every id that is left."""
    ids = survivors(logits, sampling)
    return list(range(logits.size)) if ids is None else ids.tolist()


@relaxed
@given(LOGITS, SAMPLING)
def test_what_is_left_is_what_the_model_leaves(logits: Row, sampling: Sampling) -> None:
    assert left(logits, sampling) == model(logits, sampling)


@relaxed
@given(LOGITS | WIDE, MIN_P)
def test_a_share_of_the_likeliest_leaves_what_its_weights_say(
    logits: Row, sampling: Sampling
) -> None:
    assert left(logits, sampling) == model(logits, sampling)


@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 8.0])
@pytest.mark.parametrize("sampling", [
    Sampling(temperature=1.0, top_p=0.95),
    Sampling(temperature=0.3, top_p=0.5),
    Sampling(temperature=10.0, top_p=0.999),
    Sampling(temperature=1.0, top_p=5e-324),
    Sampling(temperature=1.0, top_k=40),
    Sampling(temperature=1.0, top_k=2999, top_p=0.9, min_p=0.01),
    Sampling(temperature=0.7, top_p=0.9, min_p=0.02),
], ids=str)  # fmt: skip
def test_a_large_vocabulary_is_cut_as_a_small_one(sampling: Sampling, spread: float) -> None:
    values = np.random.default_rng(5).normal(size=3001) * spread
    logits = np.round(values * 8).astype(np.float32) / 8  # Hundreds of ties.
    assert left(logits, sampling) == model(logits, sampling)


@pytest.mark.parametrize("limit", [0, 1, 50])
def test_ranges_of_logits_and_one_sort_give_the_same(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    rng = np.random.default_rng(7)
    for top_p in (0.01, 0.5, 0.9, 0.9999):
        logits = (rng.normal(size=1500) * 4).astype(np.float32)
        sampling = Sampling(temperature=0.9, top_p=top_p)
        sorted_whole = left(logits, sampling)
        monkeypatch.setattr(cut, "SORTED_MAX", limit)
        assert left(logits, sampling) == sorted_whole
        monkeypatch.undo()


@relaxed
@given(LOGITS, st.integers(1, 90))
def test_the_largest_are_those_of_a_full_sort_with_lower_ids_first(logits: Row, count: int) -> None:
    count = min(count, len(logits))
    everything = sorted(range(len(logits)), key=lambda i: (-float(logits[i]), i))
    assert largest(logits, count).tolist() == sorted(everything[:count])
    assert in_order(logits, np.arange(len(logits))).tolist() == everything


@pytest.mark.parametrize("count", [1, 2, 40, 63, 2000])
@pytest.mark.parametrize("kind", ["random", "equal", "rising", "one group"])
def test_the_largest_of_many_groups_are_found_wherever_they_are(count: int, kind: str) -> None:
    size = 8191  # No multiple of anything.
    logits = {
        "random": np.random.default_rng(1).normal(size=size),
        "equal": np.zeros(size),
        "rising": np.arange(size),
        "one group": np.where(np.arange(size) % 127 == 3, 9.0, 0.0),
    }[kind].astype(np.float32)
    wanted = np.lexsort((np.arange(size), -logits))[:count]
    assert largest(logits, count).tolist() == sorted(wanted.tolist())


def test_ids_that_are_forbidden_are_never_left_while_others_are() -> None:
    logits = np.array([-np.inf, 1.0, -np.inf, 0.5], np.float32)
    for sampling in (
        Sampling(temperature=1.0, top_p=0.99),
        Sampling(temperature=1.0, min_p=0.1),
        Sampling(temperature=1.0, top_k=2),
    ):
        assert left(logits, sampling) == [1, 3]


@pytest.mark.parametrize("logits", [
    np.zeros(5000), np.where(np.arange(5000) % 3, 1e-42, 0.0), np.arange(5000) * -1e-6,
    np.where(np.arange(5000) % 2, -np.inf, np.arange(5000) * 1e-3), np.arange(5000) * -6e34,
    np.where(np.arange(5000) % 99, np.arange(5000) * 1e-6, -4.0),
], ids=["equal", "subnormal", "narrow", "forbidden", "wide", "strays"])  # fmt: skip
def test_ranges_fit_logits_of_any_width(logits: Row) -> None:
    row = logits.astype(np.float32)
    sampling = Sampling(temperature=1.0, top_p=0.7)
    assert left(row, sampling) == model(row, sampling)
