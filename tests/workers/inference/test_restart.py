"""The inference process may die at any moment: a new one goes on with the same bits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleets
import numpy as np
import pytest
from killing import Plan, Stage, under
from living import Living, kill
from points import INFERENCE_POINTS

from lockstep.engine.fleet_file import parse
from lockstep.engine.past import Past
from lockstep.engine.wire import RESULT_SLOT, FromEngine
from lockstep.workers.api import run
from lockstep.workers.job import Job
from lockstep.workers.launch import launch
from lockstep.workers.recorded import recorded

ROOT = Path(__file__).parents[3]
# Prompts in chunks, stories that find what was told before, more of them than slots.
STORIES = """
[fleet]
name = "stories"
seed = 11
[schedule]
policy = "dag"
items_in_flight_max = 4
[models.default]
path = "MODEL"
providers = ["cpu"]
rows_max = 3
rows_kept = 1
tokens_max = 128
prefill_tokens_per_step = 12
[agents.ann]
module = "GUESTS/teller.wasm"
replicas = 2
[agents.ben]
module = "GUESTS/teller.wasm"
config = { tokens = 14, story = 60 }
input = "deal"
"""
ITEMS, MANY = 6, 60


def job_of(folder: Path, text: str, count: int = ITEMS) -> Job:
    made = fleets.fleet(folder, text)
    input = fleets.items(folder, count)
    return Job(str(made), str(folder), str(input), run_dir=str(folder / "run"))


def launched(
    folder: Path, text: str, *stages: Stage, listen: Callable[[str, Any], None] | None = None
) -> dict[str, Any]:
    """The summary of a run under a plan whose every deed was done."""
    marks = folder / "marks"
    marks.mkdir()
    plan = Plan(str(marks), stages)
    with under(plan):
        summary = launch(job_of(folder, text), listen)
    assert plan.done == len(stages)
    return summary


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Summary of the run that nobody disturbed."""
    return launch(job_of(tmp_path_factory.mktemp("undisturbed"), STORIES))


def rows(run: str) -> Iterator[tuple[int, ...]]:
    """Every slot of every step of a run."""
    for step in Past(recorded(run).history).steps():
        yield from _slots(step.body)


def _slots(body: bytes) -> Iterator[tuple[int, ...]]:
    for row in np.frombuffer(body[: len(body) // 32 * 32], RESULT_SLOT).tolist():
        if row[0] == FromEngine.STEP:
            return
        yield row


def test_the_run_has_chunks_hits_evictions_and_copies(undisturbed: dict[str, Any]) -> None:
    found = list(rows(undisturbed["run"]))
    assert any(row[0] == FromEngine.CHUNK and row[4] > 0 for row in found)
    assert any(row[0] == FromEngine.ADMIT and row[4] > 0 for row in found)
    assert any(row[0] == FromEngine.EVICT for row in found)
    assert any(row[0] == FromEngine.COPY for row in found)
    assert any(row[0] == FromEngine.MOVE and row[2] == 3 for row in found)  # To rest,
    assert any(row[0] == FromEngine.MOVE and row[3] == 3 for row in found)  # and back.


@pytest.mark.parametrize("point", INFERENCE_POINTS)
def test_killed_anywhere_the_digest_is_that_of_the_undisturbed_run(
    tmp_path: Path, undisturbed: dict[str, Any], point: str
) -> None:
    stages = [Stage(point, "inference", 3 if "cop" in point else 7)]
    if "loaded" in point:  # The run begins behind it, so it takes a second life.
        stages = [Stage("inference: before a step", "inference", 3), Stage(point, "inference", 1)]
    summary = launched(tmp_path, STORIES, *stages)
    assert (summary["digest"], summary["restarts"]) == (undisturbed["digest"], len(stages))


def test_killed_again_and_again_it_comes_back(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    notes: list[str] = []

    def listen(what: str, value: Any) -> None:
        if what == "note":
            notes.append(value)

    points = [
        "inference: after a chunk of prefill",
        "inference: models loaded",
        "inference: tickets taken",
        "inference: half of the slots pushed",
        "inference: after the run of a decode",
    ]
    stages = [Stage(point, "inference", 2 * ("loaded" not in point) + 1) for point in points]
    summary = launched(tmp_path, STORIES, *stages, listen=listen)
    assert (summary["digest"], summary["restarts"]) == (undisturbed["digest"], 5)
    told = [note for note in notes if note.startswith("the inference process")]
    assert len(told) == 5
    assert all("was killed by SIGKILL" in note and note.endswith("brought back") for note in told)


def test_a_silent_one_is_killed_and_comes_back(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    text = STORIES + "[recovery]\noverdue_s = 1\n"
    stage = Stage("inference: after the run of a decode", "inference", 5, "stop")
    summary = launched(tmp_path, text, stage)
    assert (summary["digest"], summary["restarts"]) == (undisturbed["digest"], 1)


def test_past_the_restart_limit_the_run_stops_named_and_whole(tmp_path: Path) -> None:
    text = STORIES + "[recovery]\nrestarts_max = 1\n"
    stages = [Stage("inference: before a step", "inference", 3)] * 2
    summary = launched(tmp_path, text, *stages)
    assert (summary["state"], summary["exit_code"]) == ("stopped", 3)
    assert "the inference process (process " in summary["reason"]
    assert "SIGKILL" in summary["reason"] and "restarts_max = 1 within" in summary["reason"]


def test_a_run_in_arrival_order_goes_on_and_can_be_repeated(tmp_path: Path) -> None:
    text = STORIES.replace("[schedule]", '[schedule]\norder = "arrival"')
    stages = [
        Stage("inference: after a chunk of prefill", "inference", 4),
        Stage("inference: copies done and counted", "inference", 2),
        Stage("inference: step done, results not pushed", "inference", 9),
    ]
    summary = launched(tmp_path, text, *stages)
    assert (summary["state"], summary["restarts"]) == ("finished", 3)
    again = launch(
        replace(
            recorded(summary["run"]).job(tmp_path),
            run_dir=str(tmp_path / "again"),
            verify_of=summary["run"],
        )
    )
    assert again["digest"] == summary["digest"]


def test_two_models_with_a_period_come_back_together(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = launch(job_of(tmp_path / "plain", fleets.TWO_MODELS))
    stage = Stage("inference: after the run of a decode", "inference", 6)
    (tmp_path / "killed").mkdir()
    assert launched(tmp_path / "killed", fleets.TWO_MODELS, stage)["digest"] == plain["digest"]


def test_the_vote_survives_three_deaths_of_its_model(tmp_path: Path) -> None:
    vote = ROOT / "examples/vote"
    made, questions = str(vote / "fleet.toml"), tmp_path / "questions.jsonl"
    lines = (vote / "questions.jsonl").read_text().splitlines(keepends=True)
    questions.write_text("".join(lines[:40]))
    plain = run(made, questions, run_dir=tmp_path / "plain").digest
    (tmp_path / "marks").mkdir()
    points = ("after the run of a decode", "half of the slots pushed", "after a chunk of prefill")
    stages = tuple(Stage(f"inference: {point}", "inference", 5) for point in points)
    with under(plan := Plan(str(tmp_path / "marks"), stages)):
        done = run(made, questions, run_dir=tmp_path / "run")
    assert plan.done == 3
    assert (done.digest, done.summary["restarts"]) == (plain, 3)


# -- what only happens to it while it loads ------------------------------------------------------

KILLED_WHILE_LOADING = """
from lockstep.workers.crew import Crew
fork, forks = Crew.fork_inference, []
def killed(crew, spec):
    loading = fork(crew, spec)
    forks.append(spec)
    if len(forks) == 2:
        crew.engine.kill()
    return loading
Crew.fork_inference = killed
"""

# The first process writes nonsense over the head of its result ring, in its fifth report.
SCRIBBLING = """
from lockstep.shm.header import OFFSETS
from lockstep.workers.crew import Crew
from lockstep.workers.engine_links import EngineEnd
fork, forks, reports, report = Crew.fork_inference, [], [], EngineEnd.report
def counted(crew, spec):
    forks.append(spec)
    return fork(crew, spec)
def scribble(end, slots, records):
    report(end, slots, records)
    reports.append(end)
    if len(forks) == 1 and len(reports) == 5:
        at = OFFSETS["head"]
        end._memory.result_slots[at : at + 8] = bytes([0xEE] * 8)
        end._memory.supervisor_bell.ring()
        while True:  # Or its next report would put it right, if nobody has looked yet.
            end.wait()
Crew.fork_inference, EngineEnd.report = counted, scribble
"""

WITHOUT_KEEPING = """
from lockstep.workers.inference import slab_file
slab_file.create = lambda name: slab_file.NONE
"""


def killed_at(living: Living, step: int) -> int:
    """Kill the inference process once it has come so far; its pid."""
    living.until(lambda: fleets.board_of(living.run).engine.step >= step)
    pid = fleets.board_of(living.run).engine.pid
    kill(pid)
    return pid


@pytest.fixture(scope="module")
def long_digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    digest: str = launch(job_of(tmp_path_factory.mktemp("long"), STORIES, MANY))["digest"]
    return digest


def test_nobody_else_holds_the_memory_of_keys_and_values(tmp_path: Path) -> None:
    with Living(job_of(tmp_path, STORIES, MANY)) as living:
        killed_at(living, 10)
        living.note("brought back")
        board = fleets.board_of(living.run)
        assert sum("lockstep-kv" in name for name in files_of(board.engine.pid)) == 1
        for agent in board.agents:
            assert agent.pid and not any("lockstep-kv" in name for name in files_of(agent.pid))


def files_of(pid: int) -> list[str]:
    """What a process has open or mapped, a file once."""
    opened = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return list(dict.fromkeys([*opened, *(line.split(None, 5)[-1] for line in lines)]))


def test_killed_while_it_loads_again_it_is_started_once_more(
    tmp_path: Path, long_digest: str
) -> None:
    with Living(job_of(tmp_path, STORIES, MANY), before=KILLED_WHILE_LOADING) as living:
        killed_at(living, 30)
        summary = living.end()
    assert (summary["digest"], summary["restarts"]) == (long_digest, 2)


def test_one_that_spoils_its_ring_is_ended_and_comes_back(tmp_path: Path, long_digest: str) -> None:
    with Living(job_of(tmp_path, STORIES, MANY), before=SCRIBBLING) as living:
        summary = living.end()
    assert (summary["digest"], summary["restarts"]) == (long_digest, 1)
    assert any("was ended: result ring" in note for note in living.notes)


def test_where_keys_and_values_are_gone_recorded_steps_are_executed_again(
    tmp_path: Path, long_digest: str
) -> None:
    with Living(job_of(tmp_path, STORIES, MANY), before=WITHOUT_KEEPING) as living:
        killed_at(living, 60)
        summary = living.end()
    assert (summary["digest"], summary["restarts"]) == (long_digest, 1)
    assert any("recorded steps again" in note for note in living.notes)


def test_a_model_that_changed_since_is_refused_with_both_hashes(tmp_path: Path) -> None:
    shutil.copytree(fleets.MODEL, tmp_path / "model")
    text = STORIES.replace("MODEL", str(tmp_path / "model"))
    with Living(job_of(tmp_path, text, MANY)) as living:
        config = tmp_path / "model/tokenizer_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()), indent=7))
        killed_at(living, 30)
        summary = living.end()
    assert (summary["state"], summary["exit_code"]) == ("stopped", 3)
    assert "tokenizer_config.json was changed since the run began: " in summary["reason"]
    then, now = summary["reason"].rsplit("began: ", 1)[1].removesuffix(" (sha256)").split(" -> ")
    assert len(then) == len(now) == 64 and then != now


def test_the_recovery_table_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    plain = parse(fleets.fleet(tmp_path, STORIES).read_bytes(), "")
    other = parse(fleets.fleet(tmp_path, STORIES + "[recovery]\noverdue_s = 1\n").read_bytes(), "")
    assert plain.settings() == other.settings()
