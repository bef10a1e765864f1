"""Hostile models: each is a clear error before the run, or an accident; nothing is lost.

``pytest -m nightly -k hour`` here: an hour of varied shapes; LOCKSTEP_SHAPES_S makes it shorter.
"""

from __future__ import annotations

import gc
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleets
import hostile
import pytest

from lockstep.engine.errors import ModelRejected
from lockstep.engine.fleet import Model
from lockstep.engine.plan import Chunk, Decode, ModelPlan
from lockstep.workers import resume, verify
from lockstep.workers.inference.greedy import generate
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.proofs import Proofs
from lockstep.workers.inference.sampler import finite
from lockstep.workers.inference.selftest import proof_of
from lockstep.workers.job import Job
from lockstep.workers.launch import launch

ASKING = """
[fleet]
name = "asking"
seed = 4
[schedule]
policy = "dag"
[recovery]
restarts_max = 2
STEP
[models.default]
path = "HOSTILE"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 2
tokens_max = 64
[agents.asker]
module = "GUESTS/asker.wasm"
"""


def settings(path: str) -> Model:
    return Model("tiny", path, ("cpu",), "", 1, 3, 96, 16, 1)


def job(place: Path, model: Path, texts: list[str], step: str = "") -> Job:
    made = fleets.fleet(place, ASKING.replace("HOSTILE", str(model)).replace("STEP", step))
    lines = [json.dumps({"id": n, "text": text}) for n, text in enumerate(texts)]
    (place / "input.jsonl").write_text("\n".join(lines) + "\n")
    return Job(str(made), str(place), str(place / "input.jsonl"), run_dir=str(place / "run"))


@pytest.mark.parametrize("name", hostile.REFUSED)
def test_a_model_that_cannot_run_is_refused_with_its_cause(tmp_path: Path, name: str) -> None:
    change, cause = hostile.REFUSED[name]
    path = hostile.folder(tmp_path / "model", change)
    with pytest.raises(ModelRejected, match=cause) as error:
        LoadedModel(settings(str(path)), "2000-01-01T00:00:00Z")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data"])
def test_a_truncated_file_is_refused(copy: Path, file: str, share: float) -> None:
    data = (copy / file).read_bytes()
    (copy / file).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelRejected, match=r"model\.onnx|onnxruntime refuses"):
        LoadedModel(settings(str(copy)), "2000-01-01T00:00:00Z")


def test_nothing_is_made_of_a_run_whose_model_is_refused(tmp_path: Path) -> None:
    path = hostile.folder(tmp_path / "model", hostile.unknown_op)
    with pytest.raises(Exception, match=r"\[models\.default\].*NoSuchOperator") as error:
        launch(job(tmp_path, path, ["hello"]))
    assert getattr(error.value, "exit_code", 0) == ModelRejected.exit_code
    assert not (tmp_path / "run").exists()


def test_a_row_with_nan_is_seen_and_its_neighbours_keep_every_bit(
    tmp_path: Path, fp32: Path, decoder: Any
) -> None:
    bad = hostile.folder(tmp_path / "model", hostile.nan_rows)
    prompts = [(9, 8, 7), (9, hostile.TRIGGER), (5, 6)]
    good, rows = (generate(decoder(path), prompts, 4, join_steps=1) for path in (fp32, bad))
    assert [finite(row.logits[0]) for row in rows] == [True, False, True]
    assert rows[0].same(good[0]) and rows[2].same(good[2])


def test_a_run_with_rows_of_nan_ends_and_comes_out_again(tmp_path: Path) -> None:
    path = hostile.folder(tmp_path / "model", hostile.nan_rows)
    done = launch(job(tmp_path, path, ["well", "bad!", "good"]))
    assert (done["items_out"], done["items_failed"], done["requests_failed"]) == (3, 0, 1)
    assert "NaN or Inf" in done["request_failure"]
    assert done["classes"] == {"default": "batch-invariant"}
    assert verify(tmp_path / "run").equal


def test_a_tokenizer_with_more_tokens_than_the_model_fails_its_requests_alone(
    tmp_path: Path, copy: Path
) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    more = {**tokenizer["added_tokens"][0], "id": 512, "content": "<beyond>"}
    tokenizer["added_tokens"].append(more)
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    done = launch(job(tmp_path, copy, ["well", "<beyond>", "good"]))
    assert (done["items_out"], done["requests"], done["requests_failed"]) == (3, 3, 1)
    assert "token id 512, the model has ids of 0 to 511" in done["request_failure"]


def test_a_model_that_never_ends_is_refused_by_its_self_test(tmp_path: Path) -> None:
    path = hostile.folder(tmp_path / "model", hostile.endless)
    folder = ModelFolder.open(path)
    with pytest.raises(ModelRejected, match=r"did not end within 1 s \(\[recovery\] step_s\)"):
        proof_of(folder, settings(str(path)), Proofs(None), 1)
    folder.close()


def test_a_step_that_never_ends_is_an_accident_until_the_run_stops_and_can_go_on(
    tmp_path: Path,
) -> None:
    path = hostile.folder(tmp_path / "model", hostile.endless_when_asked)
    done = launch(job(tmp_path, path, ["well", "bad!", "good"], step="step_s = 1\nwindow_s = 1"))
    assert (done["state"], done["exit_code"], done["restarts"]) == ("stopped", 3, 2)
    assert "was killed by SIGPROF (by itself: a step took more CPU time" in done["reason"]
    assert "restarts_max = 2 within 1 s or behind one step, here step " in done["reason"]
    went_on = resume(tmp_path / "run")
    assert went_on.summary["state"] == "stopped"  # The same step, the same end.
    assert went_on.summary["steps"] == done["steps"]


def test_a_step_that_fails_is_an_accident_until_the_run_stops(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = hostile.folder(tmp_path / "model", hostile.fails_when_asked)
    done = launch(job(tmp_path, path, ["well", "bad!", "good"]))
    assert (done["state"], done["exit_code"], done["restarts"]) == ("stopped", 3, 2)
    assert "the inference process (process " in done["reason"]
    assert "left with exit status" in done["reason"]
    said = [line for line in capfd.readouterr().err.splitlines() if "lockstep: inf" in line]
    assert len(said) == 3 and all("out of data bounds" in line for line in said)


def test_a_model_that_draws_is_told_loudly_and_recorded(tmp_path: Path) -> None:
    path = hostile.folder(tmp_path / "model", hostile.noise)
    notes: list[str] = []
    done = launch(
        job(tmp_path, path, ["well"]),
        lambda what, value: notes.append(value) if what == "note" else None,
    )
    assert done["classes"] == {"default": "none"}
    assert any("THIS RUN CANNOT BE REPEATED" in note and str(path) in note for note in notes)
    manifest = json.loads((tmp_path / "run/manifest.json").read_bytes())
    assert manifest["environment"]["classes"] == {"default": "none"}


# -- memory --------------------------------------------------------------------------------------

GROWTH_BYTES_MAX = 24 << 20  # Of the whole process, behind the first round.
SHAPES_S = float(os.environ.get("LOCKSTEP_SHAPES_S", "3600"))


def resident_bytes() -> int:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kib) << 10


def round_of_shapes(decoder: Any, seed: int) -> None:
    """Prompts of many lengths in chunks of many sizes, rows in ranges of many sizes."""
    chance = random.Random(seed)
    rows, room = decoder.rows_max, decoder.tokens_max
    lengths = [0] * rows
    for slot in range(rows):
        size = chance.randrange(2, room - 8)
        first = chance.randrange(1, size) if size > 3 else size
        for start, stop in ((0, first), (first, size)):
            if stop - start > (start > 0):
                ids = tuple(chance.randrange(512) for _ in range(stop - start))
                plan = ModelPlan(0, chunks=(Chunk(slot, slot, start, ids, True),))
                decoder.run(plan)
                lengths[slot] = stop
    for _ in range(4):
        slots = sorted(chance.sample(range(rows), chance.randrange(1, rows + 1)))
        decodes = tuple(Decode(s, s, lengths[s], chance.randrange(512)) for s in slots)
        decoder.run(ModelPlan(0, decodes=decodes, lengths=tuple(lengths)))
        for slot in slots:
            lengths[slot] += 1


@pytest.fixture
def worn(decoder: Any, any_model: Path) -> Iterator[Any]:
    """A decoder that has seen the shapes once: its arenas and bindings are there."""
    made = decoder(any_model, rows=12, tokens=256)
    for seed in range(20):
        round_of_shapes(made, seed)
    yield made


def test_memory_stays_where_it_is_over_varied_shapes(worn: Any) -> None:
    before = resident_bytes()
    for seed in range(20, 120):
        round_of_shapes(worn, seed)
    assert resident_bytes() - before < GROWTH_BYTES_MAX


@pytest.mark.nightly
def test_memory_stays_where_it_is_for_an_hour_of_varied_shapes(worn: Any) -> None:
    before, until, seed = resident_bytes(), time.monotonic() + SHAPES_S / 3, 20  # Three models.
    while time.monotonic() < until:
        round_of_shapes(worn, seed)
        seed += 1
    assert resident_bytes() - before < GROWTH_BYTES_MAX


def test_sessions_that_come_and_go_leave_nothing(fp32: Path) -> None:
    def once() -> None:
        LoadedModel(settings(str(fp32)), "2000-01-01T00:00:00Z").decoder.close()

    for _ in range(5):
        once()
    before = resident_bytes()
    for _ in range(20):
        once()
    assert resident_bytes() - before < GROWTH_BYTES_MAX
