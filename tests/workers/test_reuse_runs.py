"""Whole runs in which rows rest, come back, are given up, and beginnings are copied."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import fleets
import pytest
from disorder import hogs, one_core

from lockstep.engine.past import Past
from lockstep.engine.step_slots import split
from lockstep.engine.wire import FromEngine
from lockstep.workers import verify
from lockstep.workers.job import Job
from lockstep.workers.launch import launch
from lockstep.workers.recorded import recorded

# More conversations than rows in either model; everybody begins alike.
CROWDED = """
[fleet]
name = "crowded"
seed = 21
[schedule]
policy = "dag"
items_in_flight_max = 4
[models.llama]
path = "DATA/genai-micro-fp32"
providers = ["cpu"]
rows_max = 2
rows_kept = 2
tokens_max = 128
prefill_tokens_per_step = 12
[models.qwen]
path = "DATA/genai-micro-qwen2-fp32"
providers = ["cpu"]
rows_max = 3
rows_kept = 1
tokens_max = 128
period = 2
[agents.teller]
module = "GUESTS/teller.wasm"
replicas = 4
input = "broadcast"
config = { tokens = 6 }
[agents.asker]
module = "GUESTS/asker.wasm"
replicas = 3
input = "broadcast"
config = { model = 1, tokens = 9, temperature = 0.7 }
"""
BEGIN = "once upon a time there was a {} of three"


def job(folder: Path, name: str, **more: Any) -> Job:
    """A run of it in a folder of its own."""
    return Job(
        fleet=str(fleets.fleet(folder, CROWDED)),
        base=str(folder),
        input=str(fleets.items(folder, 6, BEGIN)),
        run_dir=str(folder / name),
        durability="memory",
        **more,
    )


def ops(run: str) -> Counter[tuple[FromEngine, int]]:
    """How often each operation is in the record, by model."""
    steps = Past(recorded(run).history).steps()
    return Counter((slot.op, slot.model) for step in steps for slot in split(step.body)[0])


def test_the_digest_is_the_same_whatever_the_machine_does_meanwhile(tmp_path: Path) -> None:
    plain = launch(job(tmp_path, "plain"))
    assert plain["state"] == "finished" and plain["items_out"] == 6
    found = ops(plain["run"])
    for model in (0, 1):
        for op in (FromEngine.COPY, FromEngine.MOVE, FromEngine.EVICT):
            assert found[op, model], (op, model)
    digests = []
    with one_core():
        digests.append(launch(job(tmp_path, "one core", perturb=1))["digest"])
    with hogs(2):
        digests.append(launch(job(tmp_path, "hogs", perturb=2))["digest"])
    assert digests == [plain["digest"]] * 2
    assert verify(plain["run"]).equal


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(20))
def test_twenty_perturbed_runs_with_rows_that_rest_give_one_digest(
    tmp_path: Path, seed: int
) -> None:
    plain = launch(job(tmp_path, "plain"))
    chance = random.Random(seed)
    with hogs(chance.randint(0, 3)):
        perturbed = launch(job(tmp_path, "perturbed", perturb=seed + 1))
    assert perturbed["digest"] == plain["digest"]


def test_in_arrival_order_the_record_repeats_the_copies_that_were_made(tmp_path: Path) -> None:
    live = launch(job(tmp_path, "live", order="arrival"))
    assert live["state"] == "finished" and ops(live["run"])[FromEngine.COPY, 0]
    assert verify(live["run"]).equal


def test_both_settings_are_part_of_what_a_run_is(tmp_path: Path) -> None:
    digests = []
    for number, change in enumerate(("", "rows_kept = 0", "prefix_copies = false")):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = job(folder, "run")
        text = CROWDED.replace("rows_kept = 2", change or "rows_kept = 2", 1)
        fleets.fleet(folder, text)
        digests.append(launch(made)["digest"])
    assert len(set(digests)) == 3
