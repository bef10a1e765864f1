"""Group ``gpu``: what docs/gpu.md asks of a machine with a GPU, in one command.

Each variant of a model (plain, CUDA graphs, candidates) runs in processes of its own, since what is
asked is whether two of them agree. With ``provider`` "cpu" everything runs but the device.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lockstep.bench import machine, models
from lockstep.bench.device import Asked
from lockstep.bench.groups import Tell, building
from lockstep.bench.report import Report
from lockstep.engine.errors import UsageError
from lockstep.workers.inference.proofs import devices
from lockstep.workers.launch import ENVIRONMENT

BATCHES, BATCHES_QUICK = (1, 2, 4, 8, 16, 32, 64), (1, 4)
STEPS_QUICK, PROMPT_QUICK = 10, 16
CANDIDATES = 64
MODELS = (models.large_half, models.large_fp16)
CAPTURED = "a model all of whose nodes have kernels on the device, so one of float16"
LAST_S = 900.0  # Of one process.
SAID_CHARS_MAX = 600

setup = building(*MODELS)


def run(quick: bool, tell: Tell, provider: str = "cuda", folders: Sequence[Path] = ()) -> Report:
    """Measure everything.

    Args:
        quick: Two batches and few steps.
        tell: Told what is done.
        provider: Short name; it is required.
        folders: Models; none: the benchmarks' own two.

    Raises:
        UsageError: a model cannot be built, or a process ended without an answer.
    """
    report = Report("gpu", machine.describe() | {"gpu": devices()})
    made = folders or [make(tell) for make in MODELS]
    for folder in made:
        asked = Asked(str(folder), provider, batches=BATCHES)
        if quick:
            asked = replace(asked, batches=BATCHES_QUICK, prompt=PROMPT_QUICK, steps=STEPS_QUICK)
        _model(report, folder.name, asked, tell)
    return report


def _model(report: Report, name: str, asked: Asked, tell: Tell) -> None:
    tell(f"{name}: plain, CUDA graphs, candidates on {asked.provider}")
    plain = _ask(replace(asked, trial=True))
    again = _ask(replace(asked, batches=()))
    short = _ask(replace(asked, candidates=CANDIDATES))
    got = plain["provider"]["got"]
    report.notes[f"{name} provider"] = f"{', '.join(got)}; keys and values on {plain['device']}"
    equal = {
        "run_against_run": plain["run"],
        "alone_against_batch": plain["together"],
        "two_processes": plain["logits"] == again["logits"],
        "candidates_equal_plain": short["logits"] == plain["logits"] and bool(short["short"]),
    }
    timed = {"": plain, "_candidates": short}
    try:
        graphs = _ask(replace(asked, graphs=True))
        graphs_again = _ask(replace(asked, graphs=True, batches=()))
    except UsageError as error:  # What was measured stays.
        report.skipped.append((f"{name}_graphs", str(error), CAPTURED))
    else:
        timed["_graphs"] = graphs
        equal["two_processes_graphs"] = graphs["logits"] == graphs_again["logits"]
        equal["graphs_equal_plain"] = graphs["logits"] == plain["logits"]
    for what, same in equal.items():
        report.results[f"{name}_{what}"] = (float(same), "(1: equal to the last bit)")
    report.results[f"{name}_memory"] = (plain["limit"] / 1e9, "GB/s")
    for kind, found in timed.items():
        for batch, seconds in found["steps_s"].items():
            end = f"{name}{kind}_b{batch}"
            report.results[end] = (int(batch) / seconds, "tokens/s")
            share = found["bytes"][batch] / seconds / plain["limit"]
            report.results[f"{end}_share"] = (share, "of the memory's limit")


def _ask(asked: Asked) -> dict[str, Any]:
    """What a process of its own says. Raises UsageError: it ended without an answer."""
    command = [sys.executable, "-P", "-m", "lockstep.bench.device", asked.to_json()]
    given = {**os.environ, **ENVIRONMENT}
    try:
        done = subprocess.run(
            command, env=given, capture_output=True, text=True, timeout=LAST_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"{asked.model}: no answer within {LAST_S:g} s: {asked}") from None
    if done.returncode:
        raise UsageError(f"{asked.model} on {asked.provider}: {done.stderr[-SAID_CHARS_MAX:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
