"""The tools process dies. When an answer comes is physical, so no two runs have one history here:
what has to hold is that the run says the same, repeats itself, and answered each call once."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import points
import pytest
from killing import Stage
from lives import Lives, check_nothing_left
from scenes import Undisturbed, killed

from lockstep.engine.journal import format as journal_format
from lockstep.engine.outside import What, from_record
from lockstep.engine.record import Kind, decode
from lockstep.workers import verify
from lockstep.workers.identity import read_journal


def said(run: Path) -> list[object]:
    """Output without tags."""
    lines = (run / "output.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "tag"} for line in lines]


def answered(run: Path) -> Counter[int]:
    """How often each call was answered, by number, in the history."""
    counts: Counter[int] = Counter()
    for body in read_journal(run).bodies(journal_format.HISTORY):
        for record in decode(body):
            if record.kind == Kind.OUTSIDE and from_record(record).what == What.TOOL:
                counts[from_record(record).source] += 1
    return counts


def check_said_once(undisturbed: Lives, done: Lives) -> None:
    assert done.finished, (done.error, done.summary and done.summary["reason"])
    assert said(done.folder) == said(undisturbed.folder)
    assert answered(done.folder) == answered(undisturbed.folder)
    assert set(answered(done.folder).values()) == {1}
    assert verify(done.folder).equal
    check_nothing_left(done)
    for line in (done.folder.parent / "pids").read_text().splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line), 0)


@pytest.mark.nightly
@pytest.mark.parametrize("point", points.TOOL_POINTS)
def test_a_tools_process_that_dies_leaves_no_command_and_no_call_unanswered(
    point: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    plain, census = undisturbed("tooled")
    done = killed("tooled", tmp_path, census.choose(point, 0))
    check_said_once(plain, done)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "point", ["supervisor: turns taken", "supervisor: after an output write, before what it allows"]
)
@pytest.mark.parametrize("how", ["kill", "group"])
def test_a_supervisor_that_dies_while_tools_run_leaves_no_command_and_no_call_unanswered(
    point: str, how: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    plain, census = undisturbed("tooled")
    done = killed("tooled", tmp_path, census.choose(point, 0, how))
    check_said_once(plain, done)


def test_a_run_with_tools_that_is_killed_again_and_again_answers_each_call_once(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    stages = [Stage(point, nth=2) for point in points.TOOL_POINTS[::2]]
    stages.append(Stage("supervisor: an agent was woken", nth=4, how="group"))
    check_said_once(undisturbed("tooled")[0], killed("tooled", tmp_path, *stages))
