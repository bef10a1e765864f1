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
import pytest
from failing import under
from rings import SPEC, requests, serve

from lockstep.bench.groups import gpu
from lockstep.engine.fleet import Model
from lockstep.workers.inference.check import check
from lockstep.workers.inference.greedy import generate
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.proofs import Proofs
from lockstep.workers.inference.selftest import proof_of
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


@pytest.mark.parametrize("graphs", [False, True])
def test_greedy_tokens_are_as_expected(float32: Path, decoder: Any, graphs: bool) -> None:
    made = decoder(float32, providers=CUDA, require="cuda", graphs=graphs)
    assert made.report.got[0] == "cuda" and not made.report.missing
    assert made.slab.device == "cuda"
    for prompt, greedy in cases(float32):
        assert generate(made, [prompt], len(greedy), slot=1)[0].tokens == greedy


def test_bits_are_those_of_another_process_with_and_without_graphs(float32: Path) -> None:
    found = {how: {hashed(float32, how) for _ in range(2)} for how in ("plain", "graphs")}
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
def load(fp32: Path) -> Iterator[Callable[..., LoadedModel]]:
    made: list[LoadedModel] = []

    def one(**more: Any) -> LoadedModel:
        settings = replace(SPEC.models[0], path=str(fp32), providers=CUDA, require="cuda", **more)
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


def test_the_figures_of_the_documentation_can_be_had(fp32: Path) -> None:
    report = gpu.run(True, lambda _: None, "cuda", [fp32])
    assert report.results["genai-micro-fp32_two_processes"][0] == 1
    assert report.results["genai-micro-fp32_memory"][0] > 0
