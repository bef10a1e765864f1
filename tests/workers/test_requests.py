"""Whole runs whose agents ask for all that a request may: the same bits again, whatever dies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fleets
import pytest
from killing import Plan, Stage, under

from lockstep.workers import run, verify

FLEET = """
[fleet]
name = "requests"
seed = 3
[schedule]
policy = "dag"
items_in_flight_max = 5
[models.default]
path = "MODEL"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 3
tokens_max = 96
prefill_tokens_per_step = 16
[agents.poser]
module = "GUESTS/poser.wasm"
"""
ASKED: list[dict[str, Any]] = [
    {"prompt": "The quick brown fox jumps", "max_tokens": 12},
    {"prompt": "one two three four five", "max_tokens": 12, "temperature": 1.2, "n": 5,
     "logprobs": 2, "top_p": 0.95},
    {"prompt": "one two three four five", "max_tokens": 20, "temperature": 0.9, "top_k": 40,
     "stop": ["e", "th"], "min_tokens": 3, "n": 2},
    {"prompt": "say it again and again", "max_tokens": 20, "repetition_penalty": 1.4,
     "frequency_penalty": 0.3, "logprobs": True, "ignore_eos": True},
    {"prompt": "seeded", "max_tokens": 9, "temperature": 1, "min_p": 0.05, "seed": 8, "n": 4},
    {"prompt": "x", "tools": []},
]  # fmt: skip


def fleet(folder: Path) -> tuple[Path, Path]:
    """The fleet file and its input, each line of which is a request."""
    lines = folder / "input.jsonl"
    lines.write_text("".join(json.dumps(fields) + "\n" for fields in ASKED * 2))
    return fleets.fleet(folder, FLEET), lines


def outputs(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["payload"] for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("undisturbed")
    return run(*fleet(folder), run_dir=folder / "run")


def answers_of(result: Any) -> list[dict[str, Any]]:
    return outputs(Path(result.summary["run"]) / "output.jsonl")


def test_every_request_is_answered_as_it_asked(undisturbed: Any) -> None:
    found = answers_of(undisturbed)
    plain, many, stopped, scored, seeded, refused = found[: len(ASKED)]
    assert len(plain["token_ids"]) == 12 and plain["sampling"]["temperature"] == 0.0
    assert len(many["choices"]) == 5 and many["usage"]["completion_tokens"] == 60
    assert len({tuple(choice["token_ids"]) for choice in many["choices"]}) == 5
    assert all(len(choice["logprobs"]) == 12 for choice in many["choices"])
    assert all(
        not any(string in choice["text"][3:] for string in ("e", "th"))
        for choice in stopped["choices"]
    )
    assert [entry["token_id"] for entry in scored["logprobs"]] == scored["token_ids"]
    assert seeded["sampling"]["seed"] == 8
    assert "'tools' is known to OpenAI" in refused["error"]
    # Asked again: the greedy one is equal.
    assert found[len(ASKED)]["token_ids"] == plain["token_ids"]


def test_the_run_is_verified(undisturbed: Any) -> None:
    assert verify(undisturbed.summary["run"]).equal


@pytest.mark.parametrize("point", [
    "inference: after a chunk of prefill",
    "inference: after the run of a decode",
    "inference: half of the slots pushed",
    "inference: step done, results not pushed",
])  # fmt: skip
def test_killed_anywhere_answers_and_scores_are_those_of_the_undisturbed_run(
    tmp_path: Path, undisturbed: Any, point: str
) -> None:
    (tmp_path / "marks").mkdir()
    stages = (Stage(point, "inference", 9), Stage(point, "inference", 4))
    with under(plan := Plan(str(tmp_path / "marks"), stages)):
        done = run(*fleet(tmp_path), run_dir=tmp_path / "run")
    assert (plan.done, done.summary["restarts"]) == (2, 2)
    assert answers_of(done) == answers_of(undisturbed)
    assert done.digest == undisturbed.digest
