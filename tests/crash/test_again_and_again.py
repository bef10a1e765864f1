"""Processes that die more than once: twice, while they are brought back, together, every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from killing import Plan, Stage
from lives import Lives, carry, check_equal, check_nothing_left, go_on, live
from scenes import SCENES, Undisturbed, killed

from lockstep.engine.errors import EXIT_UNFINISHED

TURN = "agent: events taken, guest not entered"
STEP = "inference: before a step"
FEW_RESTARTS = """
[recovery]
restarts_max = 2
"""


def by_itself(undisturbed: Undisturbed, scene: str, folder: Path, *stages: Stage) -> Lives:
    """Everything in the stages happens and the run gets over it without `resume`."""
    done = killed(scene, folder, *stages)
    check_equal(undisturbed(scene)[0], done, again=True)
    assert len(done.supervisors) == 1
    return done


@pytest.mark.nightly
def test_an_agent_killed_twice_at_one_point_leaves_the_run_as_it_is(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    stage = Stage(TURN, "agent left", 9)
    by_itself(undisturbed, "paced", tmp_path, stage, stage)


def test_an_agent_killed_while_it_catches_up_catches_up_again(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    # Its second life begins with its first turns: the third is one of those it repeats.
    stages = Stage(TURN, "agent left", 12), Stage(TURN, "agent left", 3)
    by_itself(undisturbed, "paced", tmp_path, *stages)


def test_an_agent_killed_before_it_is_there_again_is_started_once_more(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    stages = Stage(TURN, "agent join", 5), Stage("agent: starting", "agent join")
    by_itself(undisturbed, "paced", tmp_path, *stages)


@pytest.mark.nightly
def test_an_agent_that_stops_while_it_catches_up_is_killed_and_catches_up(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    stages = Stage(TURN, "agent left", 12), Stage(TURN, "agent left", 4, "stop")
    by_itself(undisturbed, "paced", tmp_path, *stages)


@pytest.mark.nightly
def test_every_agent_killed_in_turn_leaves_the_run_as_it_is(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    names = ("left", "right.0", "right.1", "join")
    stages = [Stage("agent: in a host call", f"agent {name}", 4) for name in names]
    by_itself(undisturbed, "paced", tmp_path, *stages)


@pytest.mark.parametrize("scene", [pytest.param("paced", marks=pytest.mark.nightly), "story"])
def test_all_children_killed_at_once_leave_the_run_as_it_is(
    scene: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    stage = Stage("supervisor: an agent was woken", nth=20, how="children")
    by_itself(undisturbed, scene, tmp_path, stage)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(STEP, marks=pytest.mark.nightly),
        pytest.param("inference: after a chunk of prefill", marks=pytest.mark.nightly),
        "inference: models loaded",
    ],
)
def test_inference_killed_again_after_its_restart_answers_as_if_nothing_had_been(
    second: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    by_itself(undisturbed, "story", tmp_path, Stage(STEP, nth=20), Stage(second))


@pytest.mark.nightly
def test_an_agent_and_inference_killed_together_come_back_together(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    stages = Stage(TURN, "agent cat", 6), Stage("inference: after the run of a decode", nth=1)
    by_itself(undisturbed, "story", tmp_path, *stages, Stage(TURN, "agent cat", 2))


@pytest.mark.parametrize(
    ("scene", "stage"),
    [
        ("paced", Stage(TURN, "agent left", 4)),
        pytest.param("story", Stage(STEP, nth=4), marks=pytest.mark.nightly),
    ],
)
def test_who_dies_every_time_stops_the_run_and_resume_goes_on(
    scene: str, stage: Stage, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    # Restarted twice, then no more; the marks show that nothing else was tried.
    plan = Plan(str(tmp_path), (stage, *[replace(stage, nth=1)] * 50))
    job = SCENES[scene].job(tmp_path, recovery=FEW_RESTARTS)
    stopped = live(job, plan)
    assert stopped.summary is not None, stopped.error
    assert (stopped.summary["state"], stopped.summary["exit_code"]) == ("stopped", EXIT_UNFINISHED)
    assert "SIGKILL" in stopped.summary["reason"]
    assert plan.done == 3
    check_nothing_left(stopped)
    done = go_on(stopped.folder, Plan(str(tmp_path)))
    check_equal(undisturbed(scene)[0], done, again=True)


@pytest.mark.nightly
def test_a_run_stopped_at_the_limit_again_and_again_still_comes_to_its_end(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    stage = Stage(TURN, "agent left", 8)
    plan = Plan(str(tmp_path), (stage, *[replace(stage, nth=1)] * 7))
    done = carry(SCENES["paced"].job(tmp_path, recovery=FEW_RESTARTS), plan)
    check_equal(undisturbed("paced")[0], done, again=True)
    assert len(done.supervisors) == 3  # Three deaths stop a life, and there were eight.
