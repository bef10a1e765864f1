"""The grid of a sweep."""

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers.sweeps.grid import axes_of, axis_of, combinations, points, seeds_of


def test_seeds_are_ranges_and_lists_in_the_order_given() -> None:
    assert seeds_of("0..3") == [0, 1, 2, 3]
    assert seeds_of("7") == [7]
    assert seeds_of("5, 1..2,9") == [5, 1, 2, 9]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a seed or FIRST..LAST"),
        ("3..1", "'3..1', expected"),
        ("1...3", "expected"),
        ("-1", "expected"),
        ("1,,2", "'', expected"),
        ("1,0..2", "seed 1 is there twice"),
        (f"{2**63}", "none above"),
        ("0..100000", "a sweep of 100001 runs, at most 100000"),
        ("0..9999999999", "at most 100000"),
    ],
)
def test_what_are_no_seeds_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        seeds_of(text)


def test_values_are_parted_at_commas_outside_of_quotes_and_brackets() -> None:
    axis = axis_of("""agents.a.config.x=1, two, "a,b\\",", 'c,', [1,2], { k = "}," }""")
    assert axis.key == "agents.a.config.x"
    assert [each.value for each in axis.values] == [1, "two", 'a,b",', "c,", [1, 2], {"k": "},"}]


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["lookahead"], "expected KEY=V1,V2"),
        (["schedule.lookahead="], "expected KEY=V1,V2"),
        (["schedule.lookahead=1,,2"], "'' is no value"),
        (["schedule.lookahead=1,1"], "1 is there twice"),
        (["schedule.lookahead=[1,2"], "is no value"),
        (["seed=1,2"], "seeds are given by --seeds"),
        (["schedule.credit=1", "schedule.credit=2"], "schedule.credit is set twice"),
    ],
)
def test_what_is_no_axis_is_refused(texts: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        axes_of(texts)


def test_the_grid_is_every_combination_with_every_seed_the_seed_fastest() -> None:
    axes = axes_of(["schedule.lookahead=1,2", "schedule.policy=dag,events"])
    grid = points(combinations(axes), [4, 3])
    assert [str(point) for point in grid[:4]] == [
        'seed=4 schedule.lookahead=1 schedule.policy="dag"',
        'seed=3 schedule.lookahead=1 schedule.policy="dag"',
        'seed=4 schedule.lookahead=1 schedule.policy="events"',
        'seed=3 schedule.lookahead=1 schedule.policy="events"',
    ]
    assert [point.number for point in grid] == list(range(1, 9))


def test_a_grid_that_is_too_large_is_refused_before_it_is_made() -> None:
    axes = axes_of([f"schedule.{key}={','.join(map(str, range(1, 400)))}" for key in "ab"])
    with pytest.raises(UsageError, match="a sweep of 159201 runs"):
        combinations(axes)
    with pytest.raises(UsageError, match="a sweep of 119700 runs"):
        points(combinations(axes[:1]), list(range(300)))
