"""CUDA graphs without CUDA: bindings, numbers and landing are the same on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers.inference import provider
from lockstep.workers.inference.captured import GRAPH_ID
from lockstep.workers.inference.greedy import generate


def prompts(path: Path) -> list[tuple[int, ...]]:
    found = json.loads((path / "expected.json").read_text())["cases"]
    return [tuple(case["prompt_ids"]) for case in found]


def test_bits_are_those_of_steps_that_are_not_captured(any_model: Path, decoder: Any) -> None:
    plain, captured = decoder(any_model), decoder(any_model, graphs=True)
    given = prompts(any_model)
    for a, b in zip(generate(plain, given, 12), generate(captured, given, 12), strict=True):
        assert a.same(b)
    assert plain.slab.array.tobytes() == captured.slab.array.tobytes()


def test_each_range_of_slots_has_a_graph_of_its_own_and_chunks_have_none(
    fp32: Path, decoder: Any
) -> None:
    made = decoder(fp32, graphs=True)
    generate(made, prompts(fp32), 12)
    ids = {
        key: binding.options.get_run_config_entry(GRAPH_ID)
        for key, binding in made._bindings.items()
    }
    chunks = {number for (_, count), number in ids.items() if count == 0}
    graphs = [number for (_, count), number in ids.items() if count]
    assert chunks == {"-1"}
    assert len(graphs) > 3 and len(set(graphs)) == len(graphs) and min(map(int, graphs)) == 1
    assert {b.length for (_, count), b in made._bindings.items() if count} == {1}


def test_a_model_whose_end_is_not_recognised_is_refused(
    fp32: Path, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "last_position_only", lambda data, logits: None)
    with pytest.raises(UsageError, match="whose end is recognised"):
        decoder(fp32, graphs=True)
