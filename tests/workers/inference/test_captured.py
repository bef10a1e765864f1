"""CUDA graphs without CUDA: bindings, numbers and landing are the same on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers.inference import provider
from lockstep.workers.inference.captured import GRAPH_ID, graph_of
from lockstep.workers.inference.greedy import generate
from lockstep.workers.inference.ort import ort


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
        if key[1]
    }
    chunks = {binding.options for (_, count), binding in made._bindings.items() if count == 0}
    graphs = list(ids.values())
    assert chunks == {None}  # They have those of all runs.
    assert made._options.get_run_config_entry(GRAPH_ID) == "-1"
    assert len(graphs) > 3 and len(set(graphs)) == len(graphs) and min(map(int, graphs)) == 1
    assert ids == {key: str(graph_of(*key, made.rows_max)) for key in ids}
    assert {b.length for (_, count), b in made._bindings.items() if count} == {1}


def test_there_are_as_many_graphs_as_ranges_however_often_one_is_bound() -> None:
    ranges = [(first, count) for first in range(64) for count in range(1, 65 - first)]
    graphs = [graph_of(first, count, 64) for first, count in ranges]
    assert len(set(graphs)) == len(ranges) and min(graphs) > 0 and max(graphs) <= 64 * 64


def test_chunks_are_not_captured_whatever_the_options_of_the_runs_are(
    fp32: Path, decoder: Any
) -> None:
    given = ort.RunOptions()
    made = decoder(fp32, graphs=True, options=given)
    generate(made, prompts(fp32), 3)
    assert given.get_run_config_entry(GRAPH_ID) == "-1"


def test_a_model_whose_end_is_not_recognised_is_refused(
    fp32: Path, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "last_position_only", lambda data, logits: None)
    with pytest.raises(UsageError, match="whose end is recognised"):
        decoder(fp32, graphs=True)
