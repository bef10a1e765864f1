"""On an NVIDIA GPU, by `pytest -m gpu`: equality, and what runs where (docs/gpu.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleets
import numpy as np
import pytest
from failing import under
from rings import SPEC, requests, serve

from lockstep.bench import models
from lockstep.bench.groups import gpu
from lockstep.engine.fleet import Model
from lockstep.workers.inference.check import check
from lockstep.workers.inference.greedy import generate
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.proofs import Proofs
from lockstep.workers.inference.selftest import prompts_of, proof_of
from lockstep.workers.job import Job
from lockstep.workers.launch import launch
from lockstep.workers.verification import verify

pytestmark = pytest.mark.gpu
CUDA = ("cuda", "cpu")
HASHED = """
import hashlib, sys
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.greedy import generate
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.selftest import prompts_of
folder = ModelFolder.open(sys.argv[1])
made = Decoder(folder, 4, 96, 1, ("cuda", "cpu"), "cuda", graphs=sys.argv[2] == "graphs")
rows = generate(made, prompts_of(folder.facts.vocab, (1, 5, 17, 40)), 24)
print(hashlib.sha256(b"".join(row.logits.tobytes() for row in rows)).hexdigest())
"""


def cases(path: Path) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    found = json.loads((path / "expected.json").read_text())["cases"]
    return [(tuple(case["prompt_ids"]), tuple(case["greedy_ids"])) for case in found]


def hashed(path: Path, how: str) -> str:
    command = [sys.executable, "-c", HASHED, str(path), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.strip()


@pytest.fixture(params=["fp32", "qwen2-fp32"])
def float32(request: pytest.FixtureRequest, data: Path) -> Path:
    return data / f"genai-micro-{request.param}"


def test_greedy_tokens_are_as_expected(float32: Path, decoder: Any) -> None:
    made = decoder(float32, providers=CUDA, require="cuda")
    assert made.report.got[0] == "cuda" and not made.report.missing
    for prompt, greedy in cases(float32):
        assert generate(made, [prompt], len(greedy), slot=1)[0].tokens == greedy


def test_keys_and_values_of_float16_lie_there_and_steps_are_captured(
    half: Path, decoder: Any
) -> None:
    prompts = prompts_of(models.VOCAB, (1, 5, 17, 40))
    found = []
    for graphs in (False, True):
        made = decoder(half, providers=CUDA, require="cuda", graphs=graphs)
        assert made.slab.device == "cuda" and not made.report.missing
        found.append(generate(made, prompts, 24, join_steps=1))
    assert all(row.same(other) for row, other in zip(*found, strict=True))


def test_what_lies_in_a_slot_behind_its_tokens_does_not_leak(half: Path, decoder: Any) -> None:
    prompts = prompts_of(models.VOCAB, (1, 5, 17, 40))
    found = []
    for stale in (0, np.nan):
        made = decoder(half, providers=CUDA, require="cuda")
        made.slab._value.update_inplace(np.full(made.slab.shape, stale, np.float16))
        found.append(generate(made, prompts, 24, join_steps=1))
    assert all(row.same(other) for row, other in zip(*found, strict=True))


def test_bits_are_those_of_another_process_with_and_without_graphs(half: Path) -> None:
    found = {how: {hashed(half, how) for _ in range(2)} for how in ("plain", "graphs")}
    assert len(found["plain"]) == 1
    assert found["graphs"] == found["plain"]


@pytest.mark.parametrize("name", ["fp32", "int4", "qwen2-fp32"])
def test_a_model_is_at_least_reproducible(data: Path, name: str) -> None:
    report = check(data / f"genai-micro-{name}", "run", providers=CUDA)
    assert report.proven in ("run", "batch-invariant"), report.lines
    assert report.facts["provider"]["got"][0] == "cuda"


def test_the_self_test_runs_there(fp32: Path) -> None:
    folder = ModelFolder.open(fp32)
    model = Model("tiny", str(fp32), CUDA, "cuda", 1, 8, 96, 16, 1)
    proof = proof_of(folder, model, Proofs(None), 60)
    folder.close()
    assert proof.got[0] == "cuda" and proof.proven != "none"


@pytest.fixture
def load(half: Path) -> Iterator[Callable[..., LoadedModel]]:
    made: list[LoadedModel] = []

    def one(**more: Any) -> LoadedModel:
        settings = replace(SPEC.models[0], path=str(half), providers=CUDA, require="cuda", **more)
        made.append(LoadedModel(settings, SPEC.frozen_date))
        return made[-1]

    yield one
    for model in made:
        model.decoder.close()


@pytest.mark.parametrize("more", [{"candidates": 64}, {"cuda_graphs": "on"}])
def test_candidates_and_captured_steps_change_nothing_that_is_recorded(
    load: Callable[..., LoadedModel], more: dict[str, Any]
) -> None:
    asked = requests(3, ({}, {"temperature": 0.9, "top_k": 40}, {"temperature": 0.9}))
    plain = serve(load(), 10_000, asked=asked).steps
    model = load(**more)
    assert model.report.graphs == ("cuda_graphs" in more)
    assert serve(model, 10_000, asked=asked).steps == plain


def test_a_run_whose_gpu_fails_goes_on_on_the_cpu_and_can_be_verified(tmp_path: Path) -> None:
    key = 'providers = ["cuda", "cpu"]\nfallback = true'
    made = fleets.fleet(tmp_path, fleets.CHAIN.replace('providers = ["cpu"]', key))
    given = fleets.items(tmp_path, 12)
    job = Job(str(made), str(tmp_path), str(given), run_dir=str(tmp_path / "run"))
    with under(step=20):
        summary = launch(job)
    (change,) = summary["fallbacks"]
    assert (summary["state"], change["from"], change["to"]) == ("finished", "cuda", "cpu")
    assert verify(tmp_path / "run").equal


def test_the_figures_of_the_documentation_can_be_had(half: Path) -> None:
    report = gpu.run(True, lambda _: None, "cuda", [half])
    assert not report.skipped
    assert report.results[f"{half.name}_two_processes"][0] == 1
    assert report.results[f"{half.name}_memory"][0] > 0


def test_what_cannot_be_captured_is_left_out_and_told(fp32: Path) -> None:
    report = gpu.run(True, lambda _: None, "cuda", [fp32])
    ((name, why, _),) = report.skipped
    assert name == f"{fp32.name}_graphs" and "cuda" in why
