"""Scales enclose what they show, and numbers read as people write them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.workers.pictures.scale import Scale, decades, figure, finite, seconds, ticks

VALUES = st.floats(-1e9, 1e9, allow_subnormal=False)
POSITIVE = st.floats(1e-6, 1e9, allow_subnormal=False)


@pytest.mark.parametrize(
    ("low", "high"), [(0.8, 1.0), (0.993, 0.998), (1.0, 1.0), (0.0, 0.0), (3.0, 12_345.0)]
)
def test_ticks_enclose_the_range_evenly(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 1 <= len(found) <= 8
    gaps = {round(b - a, 9) for a, b in pairwise(found)}
    assert len(gaps) <= 1


@given(POSITIVE, POSITIVE)
def test_decades_enclose_any_range_above_nought(a: float, b: float) -> None:
    low, high = sorted((a, b))
    found = decades(low, high)
    assert found == sorted(found) and len(found) <= 50
    assert found[0] <= low * (1 + 1e-9) and found[-1] >= high * (1 - 1e-9)


@given(VALUES, VALUES, VALUES, st.sampled_from(["linear", "log2", "log10"]))
def test_a_value_has_a_place_on_the_axis_whatever_it_is(
    a: float, b: float, value: float, kind: str
) -> None:
    low, high = sorted((abs(a) + 1e-3, abs(b) + 1e-3))
    scale = Scale(low, high, 10, 90, kind)  # type: ignore[arg-type]
    assert 10 <= scale.at(value) <= 90


def test_a_logarithmic_scale_gives_equal_room_to_equal_factors() -> None:
    scale = Scale(1, 16, 0, 100, "log2")
    assert [scale.at(x) for x in (1, 2, 4, 8, 16, 0)] == [0, 25, 50, 75, 100, 0]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (1234.5678, "1,235"),
        (1_234_567, "1,234,567"),
        (0.00012345, "0.0001234"),
        (1e-7, "1e-07"),
        (12_345_678.0, "12,350,000"),
        (None, "\u2013"),
        (float("nan"), "\u2013"),
        ("many", "\u2013"),
    ],
)
def test_a_figure_has_four_digits_and_no_number_is_a_dash(value: object, said: str) -> None:
    assert figure(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0 s"), (12.3, "12.3 s"), (0.0031, "3.1 ms"), (4e-5, "40 \u00b5s"), (None, "\u2013")],
)
def test_times_are_said_in_the_unit_that_reads_best(value: object, said: str) -> None:
    assert seconds(value) == said


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert finite([1, None, float("nan"), float("inf"), "x", 2.5]) == [1.0, 2.5]
