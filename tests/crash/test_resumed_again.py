"""Supervisors: killed while they resume, while they bring somebody back, told to stop meanwhile."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleets
import points
import pytest
from killing import Plan, Stage
from lives import check_equal, check_nothing_left, go_on, live
from scenes import SCENES, Undisturbed, killed

from lockstep.engine.errors import EXIT_INTERRUPTED, LockstepError, UsageError
from lockstep.workers import resume
from lockstep.workers.launch import launch

TORN = Stage("supervisor: half of a journal write done", nth=3)
MIDDLE = Stage("supervisor: an agent was woken", nth=25)
FORK = "supervisor: an agent was forked"
TURN = "agent: events taken, guest not entered"


@pytest.mark.nightly
@pytest.mark.parametrize("point", points.SUPERVISOR_POINTS + points.RESUMING_POINTS)
def test_a_resume_that_is_killed_anywhere_is_resumed(
    point: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    scene = "story" if "ticket" in point or "report" in point else "paced"
    done = killed(scene, tmp_path, TORN, Stage(point))
    check_equal(undisturbed(scene)[0], done, again=True)
    assert len(done.supervisors) == 2 if done.booked else 3


def test_a_resume_that_is_killed_before_it_has_begun_is_resumed(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    stages = [Stage(point) for point in points.RESUMING_POINTS]
    done = killed("paced", tmp_path, TORN, *stages)
    check_equal(undisturbed("paced")[0], done, again=True)
    assert len(done.supervisors) == len(stages) + 2


@pytest.mark.nightly
@pytest.mark.parametrize("scene", ["paced", "story"])
def test_a_run_killed_five_times_is_resumed_five_times(
    scene: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    stages = [Stage("supervisor: turns taken", nth=13 - n) for n in range(5)]
    done = killed(scene, tmp_path, *stages)
    check_equal(undisturbed(scene)[0], done, again=True)
    assert len(done.supervisors) == 6


def test_a_supervisor_killed_while_it_brings_an_agent_back_is_resumed(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    done = killed("paced", tmp_path, Stage(TURN, "agent left", 9), Stage(FORK))
    check_equal(undisturbed("paced")[0], done, again=True)
    assert len(done.supervisors) == 2


def test_a_storm_of_signals_during_recovery_stops_the_run_and_resume_goes_on(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    plan = Plan(str(tmp_path), (Stage(TURN, "agent left", 9), Stage(FORK, how="storm")))
    job = SCENES["paced"].job(tmp_path)
    stopped = live(job, plan)
    assert plan.done == 2
    # From the second signal on nobody is told any more; the folder says it.
    booked = json.loads((stopped.folder / "summary.json").read_text())
    assert (booked["state"], booked["exit_code"]) == ("stopped", EXIT_INTERRUPTED)
    check_nothing_left(stopped)
    done = go_on(stopped.folder, plan)
    check_equal(undisturbed("paced")[0], done, again=True)


def test_a_second_supervisor_of_a_living_run_is_refused_and_the_holder_named(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    # The first one is stopped meanwhile: it would be over before the second one is there.
    plan = Plan(str(tmp_path), (Stage("supervisor: an agent was woken", nth=9, how="stop"),))
    job = SCENES["paced"].job(tmp_path)
    refusals: list[LockstepError] = []

    def hear(what: str, _value: Any) -> None:
        if what == "run":
            while not plan.done:
                pass  # The watchdog of the run ends a failure.
            for second in (job, replace(job, mode="resume", past=job.run_dir)):
                with pytest.raises(UsageError) as refused:
                    launch(second)
                refusals.append(refused.value)
            with pytest.raises(UsageError) as refused:
                resume(job.run_dir)
            refusals.append(refused.value)
            os.kill(int(Path(plan.mark(0)).read_text().split()[0]), signal.SIGCONT)

    done = live(job, plan, hear)
    check_equal(undisturbed("paced")[0], done)
    for refusal in refusals:
        assert f"process {done.supervisors[0]} is" in str(refusal)


def test_a_record_that_ends_before_anything_happened_is_resumed_or_refused_in_words(
    tmp_path: Path,
) -> None:
    job = SCENES["paced"].job(tmp_path)
    stopped = live(job, Plan(str(tmp_path), (Stage(FORK),)))
    assert "SIGKILL" in str(stopped.error)
    done = go_on(stopped.folder, Plan(str(tmp_path)))
    assert done.finished, done.error


def test_a_killed_run_has_no_board_after_it_was_resumed(tmp_path: Path) -> None:
    job = SCENES["paced"].job(tmp_path)
    killed_run = live(job, Plan(str(tmp_path), (MIDDLE,)))
    name = json.loads((killed_run.folder / "board.json").read_text())["name"]
    assert f"-{killed_run.supervisors[0]}-" in name
    done = go_on(killed_run.folder, Plan(str(tmp_path)))
    assert done.finished, done.error
    assert fleets.segments_of(killed_run.supervisors[0]) == []
    check_nothing_left(done)
