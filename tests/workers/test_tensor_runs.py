"""Whole runs whose agents ask a decoder, a graph of tensors and a text model, by turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fleets
import pytest
import tensorfolders
from killing import Plan, Stage, under

from lockstep.workers import replay, resume, run, verify

FLEET = """
[fleet]
name = "tensors"
seed = 3
[schedule]
policy = "dag"
items_in_flight_max = 6
order = "ORDER"
[models.default]
path = "MODEL"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 3
tokens_max = 96
[models.sums]
kind = "tensors"
path = "FOLDER/sums"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 2
[models.words]
kind = "tensors"
path = "FOLDER/words"
providers = ["cpu"]
intra_op_threads = 1
period = 3
[agents.poser]
module = "GUESTS/poser.wasm"
"""
ROW = {"data": [[4, 9]]}
ASKED: list[dict[str, Any]] = [
    {"prompt": "The quick brown fox jumps", "max_tokens": 12},
    {"model": "sums", "inputs": {"a": ROW, "b": {"data": [[1, 2]]}}},
    {"model": "words", "input": ["the cat", "dog"], "encoding": "base64"},
    {"model": "sums", "inputs": {"a": {"data": [[-1, 1]]}, "b": ROW}},
    {"model": "sums", "inputs": {"a": ROW}},
    {"model": "wrods", "input": "cat"},
    {"model": "words", "input": "cat " * 20},
    {"model": "sums", "inputs": {"a": ROW, "b": ROW}, "outputs": ["root"], "priority": 3},
    {"model": "sums", "prompt": "text"},
]


def fleet(folder: Path, order: str = "strict") -> tuple[Path, Path]:
    """The fleet file and its input, each line of which is a request."""
    tensorfolders.arithmetic(folder / "sums")
    tensorfolders.embedding(folder / "words")
    lines = folder / "input.jsonl"
    lines.write_text("".join(json.dumps(fields) + "\n" for fields in ASKED * 3))
    text = FLEET.replace("FOLDER", str(folder)).replace("ORDER", order)
    return fleets.fleet(folder, text), lines


def answers_of(done: Any) -> list[dict[str, Any]]:
    path = Path(done.summary["run"]) / "output.jsonl"
    return [json.loads(line)["payload"] for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("undisturbed")
    return run(*fleet(folder), run_dir=folder / "run")


def test_every_kind_of_request_is_answered(undisturbed: Any) -> None:
    text, sums, vectors, infinite, missing, unknown, long, root, prompt = answers_of(undisturbed)[
        :9
    ]
    assert len(text["token_ids"]) == 12
    assert sums["outputs"]["sum"]["data"] == [[5.0, 11.0]] and sums["finish_reason"] == "stop"
    assert [vector["shape"] for vector in vectors["embeddings"]] == [[4], [4]]
    assert vectors["usage"] == {"prompt_tokens": 3}
    assert infinite["finish_reason"] == "invalid_output" and "NaN or Inf" in infinite["error"]
    assert missing["finish_reason"] == "refused" and "is missing" in missing["error"]
    assert "did you mean 'words'" in unknown["error"]
    assert "20 tokens, expected 1 to 8" in long["error"]
    assert list(root["outputs"]) == ["root"]
    assert "expected one of inputs" in prompt["error"] or "unknown" in prompt["error"]
    # The same requests again have the same answers, but for where they are in the run.
    for again, first in zip(
        answers_of(undisturbed)[9:18], answers_of(undisturbed)[:9], strict=True
    ):
        assert again.get("outputs") == first.get("outputs")
        assert again.get("embeddings") == first.get("embeddings")


def test_the_run_is_verified_and_replayed(undisturbed: Any) -> None:
    assert verify(undisturbed.summary["run"]).equal
    assert replay(undisturbed.summary["run"]).digest == undisturbed.digest


def test_a_run_in_arrival_order_is_verified(tmp_path: Path) -> None:
    done = run(*fleet(tmp_path, "arrival"), run_dir=tmp_path / "run")
    assert answers_of(done)[1]["outputs"]["sum"]["data"] == [[5.0, 11.0]]
    assert verify(tmp_path / "run").equal


@pytest.mark.parametrize("point", [
    "inference: before a step",
    "inference: answers pushed, slots not",
    "inference: step done, results not pushed",
])  # fmt: skip
def test_killed_anywhere_the_answers_are_those_of_the_undisturbed_run(
    tmp_path: Path, undisturbed: Any, point: str
) -> None:
    (tmp_path / "marks").mkdir()
    stages = (Stage(point, "inference", 5), Stage(point, "inference", 3))
    with under(plan := Plan(str(tmp_path / "marks"), stages)):
        done = run(*fleet(tmp_path), run_dir=tmp_path / "run")
    assert (plan.done, done.summary["restarts"]) == (2, 2)
    assert answers_of(done) == answers_of(undisturbed)


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, undisturbed: Any) -> None:
    (tmp_path / "marks").mkdir()
    stages = (Stage("supervisor: step reports taken", "supervisor", 6),)
    with under(Plan(str(tmp_path / "marks"), stages)), pytest.raises(Exception, match="SIGKILL"):
        run(*fleet(tmp_path), run_dir=tmp_path / "run")
    done = resume(tmp_path / "run")
    assert answers_of(done) == answers_of(undisturbed)
