"""The kill matrix: real processes die at named points, and the run is the undisturbed one.

By night each case is a run of its own, ten times: a point, a scene and what happens there; which
process passes it for the how-manieth time is drawn by a seed from the passings of an undisturbed
run. With every commit each point comes once, several of them in one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import points
import pytest
from killing import Stage
from lives import check_equal
from scenes import Undisturbed, killed

SEEDS = range(10)
LOADED = "inference: models loaded"
COPYING = (
    "in the middle of a copy",
    "after a chunk behind copies",
    "in the middle of a copy to a row that rests",
    "a copy done, its count not written",
)


class Case(NamedTuple):
    """What happens.

    Attributes:
        point: Where.
        scene: To which fleet.
        how: As in `killing.Stage`.
        alone: The run gets over it by itself, without `resume`; None: it depends on the moment.
        durability: Of the journal.
    """

    point: str
    scene: str
    how: str = "kill"
    alone: bool | None = True
    durability: str = "async"


CASES = [
    *(Case(point, "paced") for point in points.AGENT_POINTS),
    Case("agent: events taken, guest not entered", "story"),
    Case("agent: records published, END not", "votes"),
    Case("agent: in a host call", "paced", "accident"),
    Case("agent: in a host call", "story", "stop"),
    Case("agent: in the middle of computing", "paced", "stop"),
    Case("agent: idle, before it waits for its bell", "paced", "stop"),
    *(Case(point, "story") for point in points.INFERENCE_POINTS if "cop" not in point),
    *(Case(point, "crowd") for point in points.INFERENCE_POINTS),
    Case("inference: in the middle of a copy", "crowd", "stop"),
    Case("inference: before a step", "votes"),
    Case("inference: before a step", "story", "stop"),
    Case("inference: step done, results not pushed", "story", "accident"),
    *(
        Case(point, "story" if "ticket" in point or "report" in point else "paced", alone=False)
        for point in points.SUPERVISOR_POINTS
    ),
    # A request may have come just when it died: then nobody knows what became of that.
    Case(points.SYNC_POINTS[0], "paced", alone=None, durability="sync"),
    *(Case(point, "paced", alone=False, durability="sync") for point in points.SYNC_POINTS[1:]),
    Case("agent: in the middle of computing", "paced", "group", alone=False),
    Case("inference: after the run of a decode", "story", "group", alone=False),
    Case("inference: copies done and counted", "crowd", "group", alone=False),
    Case("supervisor: half of a journal write done", "votes", "group", alone=False),
]


def name(case: Case) -> str:
    more = "" if case.how == "kill" else f" ({case.how})"
    return f"{case.point}{more}, {case.scene}"


@pytest.mark.nightly
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES, ids=name)
def test_a_run_ends_as_the_undisturbed_one_wherever_and_whenever_a_process_dies(
    case: Case, seed: int, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    plain, census = undisturbed(case.scene, case.durability)
    if case.point == LOADED:  # The run begins behind it, so it takes a second life.
        stages = [census.choose("inference: before a step", seed), Stage(LOADED)]
    else:
        assert case.point in census.points
        stages = [census.choose(case.point, seed, case.how)]
    done = killed(case.scene, tmp_path, *stages, durability=case.durability)
    check_equal(plain, done, again=True)
    lives = 1 if case.alone or done.booked else 2
    assert case.alone is None or len(done.supervisors) == lives


def test_the_matrix_has_every_point() -> None:
    known = (*points.AGENT_POINTS, *points.INFERENCE_POINTS, *points.SUPERVISOR_POINTS)
    assert {case.point for case in CASES} == {*known, *points.SYNC_POINTS}
    assert len(known) >= 20


def one_after_another(named: Sequence[str], *processes: str, nth: int = 3) -> list[Stage]:
    """A stage for each point, the processes taking turns."""
    return [Stage(point, processes[n % len(processes)], nth) for n, point in enumerate(named)]


def test_a_run_gets_over_an_agent_that_dies_at_every_point(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    starting, *others = points.AGENT_POINTS
    others.remove("agent: in the middle of computing")
    stages = [
        # Who works for several steps at a time is one of them only.
        Stage("agent: in the middle of computing", "agent left", 5),
        Stage(starting, "agent left"),
        *one_after_another(others, "agent right.1", "agent join", "agent left", "agent right.0"),
    ]
    done = killed("paced", tmp_path, *stages)
    check_equal(undisturbed("paced")[0], done, again=True)
    assert len(done.supervisors) == 1


@pytest.mark.parametrize("part", range(3))
def test_a_run_gets_over_inference_that_dies_at_every_point(
    part: int, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    named = [point for point in points.INFERENCE_POINTS if point != LOADED]
    named = [*named, LOADED][part::3]  # It is passed once in each life, so it is the last.
    stages = [Stage(point, nth=1 if point == LOADED else 5) for point in named]
    done = killed("crowd", tmp_path, *stages)
    check_equal(undisturbed("crowd")[0], done, again=part == 0)
    assert len(done.supervisors) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_run_gets_over_inference_that_dies_in_a_prefill_a_copy_and_a_keep(
    seed: int, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    plain, census = undisturbed("crowd")
    named = ["before a chunk of prefill", *COPYING]
    stages = [census.choose(f"inference: {point}", seed) for point in named]
    # Each counts from the death before it, and all of them have to come.
    stages = [replace(stage, nth=1 + stage.nth // len(named)) for stage in stages]
    done = killed("crowd", tmp_path, *stages)
    check_equal(plain, done, again=seed == 0)
    assert len(done.supervisors) == 1


@pytest.mark.parametrize("nth", [3, 12, 21])
def test_copies_whose_sources_were_written_over_since_are_not_done_again(
    nth: int, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """A chunk may take the slot that a conversation has just left for its rest.

    At the last of these a process that did all copies again would spoil one that comes back.
    """
    done = killed("crowd", tmp_path, Stage("inference: after a chunk behind copies", nth=nth))
    check_equal(undisturbed("crowd")[0], done)
    assert len(done.supervisors) == 1


def test_a_run_whose_slots_are_lost_makes_copied_prefixes_again(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    plain, census = undisturbed("crowd")
    stages = [
        replace(census.choose("inference: copies done and counted", seed), how="group")
        for seed in (1, 2)
    ]
    stages = [replace(stage, nth=1 + stage.nth // 2) for stage in stages]
    done = killed("crowd", tmp_path, *stages)
    check_equal(plain, done, again=True)
    assert len(done.supervisors) == 3


@pytest.mark.parametrize("how", ["stop", "accident"])
def test_a_run_gets_over_an_agent_and_inference_that_end_otherwise(
    how: str, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    stages = (
        Stage("agent: in a host call", "agent ben", 6, how),
        Stage("inference: before a step", nth=5, how=how),
    )
    done = killed("story", tmp_path, *stages)
    check_equal(undisturbed("story")[0], done)
    assert len(done.supervisors) == 1


def test_a_run_whose_supervisor_dies_at_every_point_comes_to_its_end(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    without = [p for p in points.SUPERVISOR_POINTS if "ticket" not in p and "report" not in p]
    stages = [Stage(point, nth=1 if n > 3 else 2) for n, point in enumerate(without)]
    done = killed("paced", tmp_path, *stages)
    check_equal(undisturbed("paced")[0], done, again=True)
    assert done.booked and len(done.supervisors) == len(stages)


def test_a_run_with_a_model_whose_supervisor_and_whole_group_die_comes_to_its_end(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    stages = (
        Stage("supervisor: step reports taken", nth=6),
        Stage("supervisor: tickets sent", nth=9),
        Stage("inference: after the run of a decode", nth=8, how="group"),
    )
    done = killed("story", tmp_path, *stages)
    check_equal(undisturbed("story")[0], done, again=True)
    assert len(done.supervisors) == 4


def test_a_run_whose_sync_process_dies_in_a_sync_is_resumed(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    # Between two of these the run stops: it may be the error of the disk that was lost.
    idle, *syncing = (Stage(point, nth=2) for point in points.SYNC_POINTS)
    done = killed("paced", tmp_path, *syncing, idle, durability="sync")
    check_equal(undisturbed("paced", "sync")[0], done)
    assert len(done.supervisors) in (3, 4)
